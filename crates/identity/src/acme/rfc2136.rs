//! Dynamic updates of a DNS zone (RFC 2136) signed by TSIG (RFC 8945, HMAC-SHA256), over TCP. An answer counts only when
//! it is signed by the same key over our own signature: nobody in between can say that an update was taken.

use super::dns::{self, name};
use super::dns01::{Record, TTL};
use model::{Error, Result};
use ring::hmac;
use runtime::Cx;
use runtime::resilience::Dependency;
use std::net::SocketAddr;
use std::sync::Arc;

const SOA: u16 = 6;
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

/// A signed question: its bytes, and the signature that the answer's is made over.
struct Signed {
    message: Vec<u8>,
    mac: Vec<u8>,
}

impl Server {
    /// Its breaker and retries.
    pub fn dependency(&self, cx: &Cx) -> Arc<Dependency> {
        cx.dependencies().named(&format!("name server {}", self.at))
    }

    /// Adds or removes records. `now` in seconds since 1970, by the wall clock.
    pub async fn update(&self, records: &[Record], add: bool, now: u64) -> Result<()> {
        let id: u16 = rand::random();
        let signed = self.message(id, records, add, now)?;
        let answer = dns::ask(self.at, &signed.message).await?;
        let word = match answer.get(3).map(|b| b & 0x0f) {
            Some(0) => return self.believe(&answer, &signed, now),
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

    /// Whether it is the key's holder who says that the update was taken.
    fn believe(&self, answer: &[u8], asked: &Signed, now: u64) -> Result<()> {
        let wrong = |why: &str| {
            Error::refused(format!(
                "the name server {} says that it took the update of {}, and {why}: somebody in between may have said so",
                self.at, self.zone
            ))
        };
        let Some(tsig) = dns::signature(answer) else {
            return Err(wrong("does not sign that"));
        };
        let mut signed = (asked.mac.len() as u16).to_be_bytes().to_vec();
        signed.extend(&asked.mac);
        signed.extend(&answer[..tsig.at]);
        // As it was before it was signed: its own id, and one record less.
        signed[2 + asked.mac.len()..][..2].copy_from_slice(&tsig.id);
        let more = u16::from_be_bytes([answer[10], answer[11]]).saturating_sub(1);
        signed[2 + asked.mac.len() + 10..][..2].copy_from_slice(&more.to_be_bytes());
        signed.extend(name(&self.key_name)?);
        signed.extend(ANY.to_be_bytes());
        signed.extend([0; 4]);
        signed.extend(name("hmac-sha256")?);
        signed.extend(tsig.time);
        signed.extend(tsig.fudge.to_be_bytes());
        signed.extend(tsig.rest);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        if hmac::verify(&key, &signed, tsig.mac).is_err() {
            return Err(wrong("its signature is not of our key"));
        }
        let said = tsig.time.iter().fold(0, |n, b| n << 8 | u64::from(*b));
        match said.abs_diff(now) <= u64::from(tsig.fudge.min(FUDGE)) {
            true => Ok(()),
            false => Err(wrong("its signature is of another time")),
        }
    }

    /// A whole signed update.
    fn message(&self, id: u16, records: &[Record], add: bool, now: u64) -> Result<Signed> {
        let mut message = dns::head(id, 5 << 11, [1, 0, records.len() as u16, 0]);
        message.extend(name(&self.zone)?);
        message.extend([SOA, dns::IN].map(u16::to_be_bytes).concat());
        for record in records {
            let text = record.value.as_bytes();
            let (class, ttl) = match add {
                true => (dns::IN, TTL),
                false => (NONE, 0),
            };
            message.extend(name(&record.name)?);
            message.extend([dns::TXT, class].map(u16::to_be_bytes).concat());
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
        message.extend([dns::TSIG, ANY].map(u16::to_be_bytes).concat());
        message.extend([0; 4]);
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
        // One additional record: the signature.
        message[11] = 1;
        Ok(Signed {
            message,
            mac: mac.as_ref().to_vec(),
        })
    }
}
