//! Dynamic updates of a DNS zone (RFC 2136) signed by TSIG (RFC 8945, HMAC-SHA256), over TCP.

use super::dns01::{Record, TTL};
use model::{Error, Result};
use ring::hmac;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(10);
const TXT: u16 = 16;
const SOA: u16 = 6;
const TSIG: u16 = 250;
const IN: u16 = 1;
const NONE: u16 = 254;
const ANY: u16 = 255;
/// How far clocks may be apart, in seconds.
const FUDGE: u16 = 300;

/// A name server with a key.
pub(super) struct Server {
    pub at: SocketAddr,
    pub zone: String,
    pub key_name: String,
    pub key: Vec<u8>,
}

impl Server {
    /// Adds or removes records.
    pub async fn update(&self, records: &[Record], add: bool, now: u64) -> Result<()> {
        let id: u16 = rand::random();
        let message = self.message(id, records, add, now)?;
        let answer = self.ask(&message).await?;
        let word = match answer.get(3).map(|b| b & 0x0f) {
            Some(0) => return Ok(()),
            Some(1) => "it could not read the update",
            Some(2) => "it failed",
            Some(5) => "it refused: may this key update this name?",
            Some(9) => {
                "the signature is wrong, or it does not answer for the zone: check key name, key and clocks"
            }
            Some(10) => "the name is not in the zone",
            _ => "it refused",
        };
        Err(Error::refused(format!(
            "the name server {} did not update {}: {word}",
            self.at, self.zone
        )))
    }

    /// Whether a record is there.
    pub async fn shows(&self, record: &Record) -> Result<bool> {
        let mut message = head(rand::random(), 0, [1, 0, 0, 0]);
        message.extend(name(&record.name)?);
        message.extend([TXT, IN].map(u16::to_be_bytes).concat());
        let answer = self.ask(&message).await?;
        let value = record.value.as_bytes();
        Ok(answer.windows(value.len()).any(|w| w == value))
    }

    /// A whole signed update.
    fn message(&self, id: u16, records: &[Record], add: bool, now: u64) -> Result<Vec<u8>> {
        let mut message = head(id, 5 << 11, [1, 0, records.len() as u16, 0]);
        message.extend(name(&self.zone)?);
        message.extend([SOA, IN].map(u16::to_be_bytes).concat());
        for record in records {
            let text = record.value.as_bytes();
            let (class, ttl) = match add {
                true => (IN, TTL),
                false => (NONE, 0),
            };
            message.extend(name(&record.name)?);
            message.extend([TXT, class].map(u16::to_be_bytes).concat());
            message.extend(ttl.to_be_bytes());
            message.extend((text.len() as u16 + 1).to_be_bytes());
            message.push(text.len() as u8);
            message.extend(text);
        }
        let (key_name, algorithm) = (name(&self.key_name)?, name("hmac-sha256")?);
        let time = &now.to_be_bytes()[2..];
        let mut signed = message.clone();
        signed.extend(&key_name);
        signed.extend(ANY.to_be_bytes());
        signed.extend([0; 4]);
        signed.extend(&algorithm);
        signed.extend(time);
        signed.extend(FUDGE.to_be_bytes());
        signed.extend([0; 4]);
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.key), &signed);
        let mut data = algorithm;
        data.extend(time);
        data.extend(FUDGE.to_be_bytes());
        data.extend((mac.as_ref().len() as u16).to_be_bytes());
        data.extend(mac.as_ref());
        data.extend(id.to_be_bytes());
        data.extend([0; 4]);
        message.extend(key_name);
        message.extend([TSIG, ANY].map(u16::to_be_bytes).concat());
        message.extend([0; 4]);
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
        // One additional record: the signature.
        message[11] = 1;
        Ok(message)
    }

    async fn ask(&self, message: &[u8]) -> Result<Vec<u8>> {
        let talk = async {
            let mut stream = TcpStream::connect(self.at).await?;
            let mut framed = (message.len() as u16).to_be_bytes().to_vec();
            framed.extend(message);
            stream.write_all(&framed).await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let down = |why: String| {
            Error::unavailable(format!(
                "the name server {} does not answer: {why}",
                self.at
            ))
        };
        let answer = tokio::time::timeout(PATIENCE, talk)
            .await
            .map_err(|_| down("it took too long".into()))?
            .map_err(|e| down(e.to_string()))?;
        match answer.len() >= 12 && answer[..2] == message[..2] {
            true => Ok(answer),
            false => Err(down("its answer is not one to our question".into())),
        }
    }
}

fn head(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut out = [id, flags].map(u16::to_be_bytes).concat();
    out.extend(counts.map(u16::to_be_bytes).concat());
    out
}

/// A name as DNS writes it, in lower case.
fn name(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for label in text.trim_end_matches('.').split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(Error::refused(format!("`{text}` is not a DNS name")));
        }
        out.push(label.len() as u8);
        out.extend(label.to_ascii_lowercase().bytes());
    }
    out.push(0);
    match out.len() <= 255 {
        true => Ok(out),
        false => Err(Error::refused(format!(
            "`{text}` is longer than a DNS name"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(name("A.b.").unwrap(), b"\x01a\x01b\x00");
        for bad in ["", ".", "a..b", &"x".repeat(64), &"abc.".repeat(70)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
