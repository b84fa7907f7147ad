//! `key_count/<first key>`: how many keys there are from here up to the next row's. Written when a key is
//! made or deleted; the row of the empty key, which counts from the first key on, lives for ever, another one
//! until nothing is left to count.
//!
//! layout: [TAG][first key that it counts] -> [keys, u32 big-endian]

pub(crate) const TAG: u8 = 18;

pub(crate) fn key(first: &[u8]) -> Vec<u8> {
    [&[TAG], first].concat()
}

pub(crate) fn decode_key(row: &[u8]) -> &[u8] {
    row.get(1..).unwrap_or_default()
}

pub(crate) fn encode(keys: u32) -> [u8; 4] {
    keys.to_be_bytes()
}

pub(crate) fn decode(value: &[u8]) -> Result<u32, String> {
    let bytes = value
        .try_into()
        .map_err(|_| format!("found {} bytes, expected 4", value.len()))?;
    Ok(u32::from_be_bytes(bytes))
}
