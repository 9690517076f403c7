//! Where an address is, by the database that an administrator has put there. Read once, and again when the file changes.

use super::rules::Place;
use maxminddb::Reader;
use model::{Error, Result};
use parking_lot::Mutex;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The largest database that is read into memory; a whole world with cities is a tenth of it.
const LARGEST: u64 = 1 << 30;

type World = Arc<Reader<Vec<u8>>>;

/// What was read last, and what the file was like.
type Read = (PathBuf, Option<SystemTime>, u64, World);
static LAST: Mutex<Option<Read>> = Mutex::new(None);

/// Where an address is; nothing when the database does not know.
///
/// # Errors
/// When the file is not there or is no such database.
pub(super) async fn find(path: String, address: IpAddr) -> Result<Option<Place>> {
    let found = tokio::task::spawn_blocking(move || {
        let world = world(Path::new(&path))?;
        look(&world, address)
    });
    found
        .await
        .map_err(|e| Error::internal("looking for a place broke off").because(e))?
}

fn world(path: &Path) -> Result<World> {
    let wrong = |e: &dyn std::fmt::Display| {
        Error::unavailable(format!(
            "the database of places `{}` cannot be read: {e}",
            path.display()
        ))
        .hint("the setting geoip-file names it; an empty one does without")
    };
    let meta = std::fs::metadata(path).map_err(|e| wrong(&e))?;
    let (changed, long) = (meta.modified().ok(), meta.len());
    if long > LARGEST {
        return Err(wrong(&"it is larger than 1 GiB"));
    }
    let same = |last: &&Read| last.0 == path && last.1 == changed && last.2 == long;
    if let Some(last) = LAST.lock().as_ref().filter(same) {
        return Ok(last.3.clone());
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(&e))?;
    let world = Arc::new(Reader::from_source(bytes).map_err(|e| wrong(&e))?);
    *LAST.lock() = Some((path.to_owned(), changed, long, world.clone()));
    Ok(world)
}

fn look(world: &Reader<Vec<u8>>, address: IpAddr) -> Result<Option<Place>> {
    #[derive(Deserialize)]
    struct Known {
        location: Option<Location>,
    }
    #[derive(Deserialize)]
    struct Location {
        latitude: Option<f64>,
        longitude: Option<f64>,
    }
    let wrong = |e| Error::unavailable("the database of places is damaged").because(e);
    let known = world.lookup(address.to_canonical()).map_err(wrong)?;
    let known: Option<Known> = known.decode().map_err(wrong)?;
    let location = known.and_then(|known| known.location);
    Ok(location.and_then(|at| {
        let (latitude, longitude) = (at.latitude?, at.longitude?);
        let on_earth = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        on_earth.then_some(Place {
            latitude,
            longitude,
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::super::made::made;
    use super::*;

    #[tokio::test]
    async fn places_are_found_in_a_database_and_a_new_one_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made.mmdb");
        let find = |ip: &str| find(path.display().to_string(), ip.parse().unwrap());
        assert!(
            find("81.0.0.1")
                .await
                .unwrap_err()
                .message
                .contains("made.mmdb")
        );
        std::fs::write(&path, "nonsense").unwrap();
        assert!(find("81.0.0.1").await.is_err());
        std::fs::write(&path, made(&[(81, 48.2, 16.37), (1, -33.87, 151.21)])).unwrap();
        let vienna = Some(Place {
            latitude: 48.2,
            longitude: 16.37,
        });
        assert_eq!(find("81.2.3.4").await.unwrap(), vienna);
        assert_eq!(find("::ffff:81.2.3.4").await.unwrap(), vienna);
        assert_eq!(find("1.2.3.4").await.unwrap().unwrap().longitude, 151.21);
        assert_eq!(find("82.2.3.4").await.unwrap(), None);
        std::fs::write(&path, made(&[(82, 48.2, 16.37)])).unwrap();
        assert_eq!(find("82.2.3.4").await.unwrap(), vienna);
    }
}
