//! What the first bytes of a connection say of the caller.

/// With what HTTP/2 begins, RFC 9113, section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest method of a request that is still taken for HTTP/1.
const METHOD_BYTES_MAX: usize = 16;

/// What a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Http2,
    Http1,
    /// A TLS handshake, RFC 8446, section 5.1: a record of the type 22 of some version 3.
    Tls,
    /// Nothing that is known here.
    Unknown,
}

/// Reads the first bytes; `None`: more are needed.
pub(crate) fn read(bytes: &[u8]) -> Option<Opening> {
    let length = bytes.len().min(PREFACE.len());
    if bytes[..length] == PREFACE[..length] {
        return (length == PREFACE.len()).then_some(Opening::Http2);
    }
    match bytes {
        [0x16] => return None,
        [0x16, 0x03, ..] => return Some(Opening::Tls),
        _ => {}
    }
    let letters = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_uppercase())
        .count();
    match bytes.get(letters) {
        Some(b' ') if (1..=METHOD_BYTES_MAX).contains(&letters) => Some(Opening::Http1),
        None if letters <= METHOD_BYTES_MAX => None,
        _ => Some(Opening::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_is_known_as_soon_as_it_can_be() {
        assert_eq!(read(b""), None);
        assert_eq!(read(&PREFACE[..PREFACE.len() - 1]), None);
        assert_eq!(read(PREFACE), Some(Opening::Http2));
        assert_eq!(
            read(&[PREFACE, b"\0\0\0\x04"].concat()),
            Some(Opening::Http2)
        );
        assert_eq!(read(b"PRI * HTTP/1.1\r\n"), Some(Opening::Http1));
        for text in ["GET / HTTP/1.1\r\n", "POST /x", "OPTIONS *", "PROPFIND /"] {
            assert_eq!(read(text.as_bytes()), Some(Opening::Http1), "{text}");
        }
        assert_eq!(read(b"GE"), None);
        assert_eq!(read(&[0x16]), None);
        assert_eq!(read(&[0x16, 0x03, 0x01, 0x02]), Some(Opening::Tls));
        for bytes in [
            &[0x16, 0x04][..],
            b" GET",
            b"get /",
            b"\0",
            b"GET\r\n",
            b"SSH-2.0",
        ] {
            assert_eq!(read(bytes), Some(Opening::Unknown), "{bytes:?}");
        }
        assert_eq!(read(&[b'A'; 17]), Some(Opening::Unknown));
    }

    #[test]
    fn any_bytes_are_decided_within_the_length_of_the_preface() {
        for first in 0..=u8::MAX {
            for second in [0, b' ', b'A', b'R', 0xff] {
                let mut bytes = vec![second; PREFACE.len()];
                bytes[0] = first;
                assert!(read(&bytes).is_some(), "{bytes:?}");
            }
        }
    }
}
