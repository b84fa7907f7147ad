//! A key as a person types it.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// Its text, in which `\x` and two hexadecimal digits stand for a byte, such as the zero byte that no shell
/// passes on. Every other backslash stands for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    typed: String,
    bytes: Vec<u8>,
}

impl FromStr for Key {
    type Err = Infallible;

    fn from_str(typed: &str) -> Result<Self, Infallible> {
        let mut bytes = Vec::with_capacity(typed.len());
        let mut rest = typed.as_bytes();
        while let [first, after @ ..] = rest {
            let (byte, after) = escaped(rest).unwrap_or((*first, after));
            bytes.push(byte);
            rest = after;
        }
        let typed = typed.to_owned();
        Ok(Self { typed, bytes })
    }
}

/// The byte that the text begins with in hexadecimal digits, and what follows.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let digits = text.strip_prefix(br"\x")?;
    let (digits, after) = digits.split_at_checked(2)?;
    let [high, low] = [digits[0], digits[1]].map(|digit| char::from(digit).to_digit(16));
    let byte = u8::try_from(high? * 16 + low?).ok()?;
    Some((byte, after))
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(typed: &str) -> Vec<u8> {
        let Ok(key) = typed.parse::<Key>();
        key.bytes
    }

    #[test]
    fn only_a_byte_in_hexadecimal_digits_is_more_than_it_looks() {
        assert_eq!(bytes(r"\x00tally/nodes/1"), b"\0tally/nodes/1");
        assert_eq!(bytes(r"a\xFf\x0a"), b"a\xff\n");
        assert_eq!(bytes("grün"), "grün".as_bytes());
        for plain in [r"C:\x", r"\xg0", r"\x0", r"\n", r"\\", r"a\"] {
            assert_eq!(bytes(plain), plain.as_bytes(), "{plain}");
        }
    }
}
