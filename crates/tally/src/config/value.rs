//! The forms of values. Each parser says what is wrong; what is allowed stands with the key.

/// What a number may be, for messages. Zero means nothing for any of them.
pub(super) const NUMBER_EXPECTED: &str = "a whole number of 1 or more";
/// What an address may be, for messages.
pub(super) const HOST_PORT_EXPECTED: &str = "HOST:PORT, for example 0.0.0.0:7411";
/// Longest name of a member, in bytes.
const MEMBER_NAME_BYTES_MAX: usize = 64;

/// A number of 1 or more that its setting can hold.
pub(super) fn number<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let number: u64 = text
        .parse()
        .map_err(|_| "it is no number of that kind".to_owned())?;
    if number == 0 {
        return Err("it is 0".to_owned());
    }
    N::try_from(number).map_err(|_| "it is too large".to_owned())
}

/// `HOST:PORT`; the host may be a name or an address, IPv6 in brackets.
pub(super) fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !bracketed {
        return Err("an IPv6 address goes in brackets".to_owned());
    }
    if host.contains(|c: char| c.is_whitespace() || c == '/' || c == ',') {
        return Err("the host is no name or address".to_owned());
    }
    match port.parse::<u16>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{port:?} is no port")),
    }
}

/// As [`address`], for flags that no configuration has.
pub(crate) fn host_port(text: &str) -> Result<String, String> {
    address(text).map_err(|why| format!("{why}; expected {HOST_PORT_EXPECTED}"))
}

/// A member's name: it stands in lists, file names and commands.
pub(super) fn member_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > MEMBER_NAME_BYTES_MAX {
        return Err(format!("it is longer than {MEMBER_NAME_BYTES_MAX} bytes"));
    }
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "=,/".contains(c);
    match text.chars().find(|c| forbidden(*c)) {
        Some(found) => Err(format!("it contains {found:?}")),
        None => Ok(text.to_owned()),
    }
}

/// `n1=host1:7412,n2=host2:7412`, in order, each name and each address once.
pub(super) fn initial_cluster(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut members: Vec<(String, String)> = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (name, peer) = part.split_once('=').ok_or(format!("{part:?} has no `=`"))?;
        let name = member_name(name.trim()).map_err(|why| format!("name {name:?}: {why}"))?;
        let peer = address(peer.trim()).map_err(|why| format!("address {peer:?}: {why}"))?;
        for (other, taken) in &members {
            if *other == name {
                return Err(format!("{name} stands there twice"));
            }
            if *taken == peer {
                return Err(format!("{other} and {name} have one address"));
            }
        }
        members.push((name, peer));
    }
    if members.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in [
            "127.0.0.1:1",
            "[::1]:7411",
            "host-1.example:65535",
            "0.0.0.0:0",
        ] {
            assert_eq!(address(good), Ok(good.to_owned()));
        }
        for bad in [
            "host",
            ":7411",
            "host:http",
            "host:65536",
            "::1:7411",
            "http://host:1",
            "a b:1",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_of_members_keeps_its_order() {
        let members = initial_cluster("n2=b:2, n1=a:1,").map(|members| format!("{members:?}"));
        assert_eq!(members, Ok(r#"[("n2", "b:2"), ("n1", "a:1")]"#.to_owned()));
        for bad in [
            "",
            "n1",
            "n1=a",
            "n1=a:1,n1=b:1",
            "n1=a:1,n2=a:1",
            "=a:1",
            "n 1=a:1",
        ] {
            assert!(initial_cluster(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_fits_its_setting() {
        assert_eq!(number::<u32>("7"), Ok(7));
        assert!(number::<u32>("0").is_err());
        assert!(number::<u32>("-1").is_err());
        assert!(number::<u32>("4294967296").is_err());
    }
}
