//! The key file of versions before the key ring: keys in the clear. Read once, to take them into the ring.

use super::keys::{CLUSTER, DataKey};

const TITLE: &str = "debvisor keys 1";

/// Its keys, the primary one with the highest version; or the number of the first line that is wrong.
pub(super) fn parse(text: &str) -> Result<Vec<DataKey>, usize> {
    let mut lines = text.lines().zip(1..);
    if lines.next().map(|(line, _)| line) != Some(TITLE) {
        return Err(1);
    }
    let (mut older, mut primary) = (Vec::new(), None);
    let mut last = 1;
    for (line, number) in lines {
        last = number;
        let mut words = line.split(' ');
        let (Some(role), Some(id), Some(secret), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(number);
        };
        let mut key = DataKey {
            scope: CLUSTER.into(),
            version: 0,
            id: id.to_owned(),
            secret: [0; 32],
        };
        hex::decode_to_slice(secret, &mut key.secret).map_err(|_| number)?;
        let twice = |k: &DataKey| k.id == id;
        if id.is_empty() || older.iter().chain(&primary).any(twice) {
            return Err(number);
        }
        match role {
            "primary" if primary.is_none() => primary = Some(key),
            "older" => older.push(key),
            _ => return Err(number),
        }
    }
    let Some(primary) = primary else {
        return Err(last);
    };
    older.push(primary);
    for (key, version) in older.iter_mut().zip(1..) {
        key.version = version;
    }
    Ok(older)
}
