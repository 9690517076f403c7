//! The little DNS that is needed to make and see TXT records: messages over TCP. Reading never trusts a length.

use model::{Error, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(10);
/// Type of a text.
pub(super) const TXT: u16 = 16;
/// Type of a signature.
pub(super) const TSIG: u16 = 250;
/// Class of the Internet.
pub(super) const IN: u16 = 1;

/// The first twelve bytes of a message.
pub(super) fn head(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut out = [id, flags].map(u16::to_be_bytes).concat();
    out.extend(counts.map(u16::to_be_bytes).concat());
    out
}

/// A name as DNS writes it, in lower case.
pub(super) fn name(text: &str) -> Result<Vec<u8>> {
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

/// Asks one server over TCP.
pub(super) async fn ask(at: SocketAddr, message: &[u8]) -> Result<Vec<u8>> {
    let talk = async {
        let mut stream = TcpStream::connect(at).await?;
        let mut framed = (message.len() as u16).to_be_bytes().to_vec();
        framed.extend(message);
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let down =
        |why: String| Error::unavailable(format!("the name server {at} does not answer: {why}"));
    let answer = tokio::time::timeout(PATIENCE, talk)
        .await
        .map_err(|_| down("it took too long".into()))?
        .map_err(|e| down(e.to_string()))?;
    match answer.len() >= 12 && answer[..2] == message[..2] {
        true => Ok(answer),
        false => Err(down("its answer is not one to our question".into())),
    }
}

/// Whether a server shows this text at this name.
pub(super) async fn shows(at: SocketAddr, record: &str, text: &str) -> Result<bool> {
    let mut message = head(rand::random(), 0, [1, 0, 0, 0]);
    message.extend(name(record)?);
    message.extend([TXT, IN].map(u16::to_be_bytes).concat());
    Ok(texts(&ask(at, &message).await?).contains(&text.as_bytes().to_vec()))
}

/// The texts in the answers of a message. What cannot be read ends them.
pub(super) fn texts(message: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut reader = Reader { message, at: 0 };
    let Some(counts) = reader.head() else {
        return out;
    };
    for _ in 0..counts[1] {
        let Some(record) = reader.record() else { break };
        if record.sort != TXT {
            continue;
        }
        // One text may come in pieces.
        let (mut text, mut rest) = (Vec::new(), record.content);
        while let Some((length, more)) = rest.split_first() {
            let Some(piece) = more.get(..usize::from(*length)) else {
                break;
            };
            text.extend_from_slice(piece);
            rest = &more[piece.len()..];
        }
        out.push(text);
    }
    out
}

/// What signs a message.
#[derive(Debug)]
pub(super) struct Signature<'a> {
    /// Where its record begins; it is the last.
    pub at: usize,
    /// When it was made: seconds since 1970 in six bytes.
    pub time: &'a [u8],
    /// How far clocks may be apart, in seconds.
    pub fudge: u16,
    /// The signature itself.
    pub mac: &'a [u8],
    /// The id that the message had when it was signed.
    pub id: [u8; 2],
    /// The error and what belongs to it, as they are signed.
    pub rest: &'a [u8],
}

/// The signature of a message; `None` when it has none that can be read.
pub(super) fn signature(message: &[u8]) -> Option<Signature<'_>> {
    let mut reader = Reader { message, at: 0 };
    let counts = reader.head()?;
    let records = counts[1..].iter().map(|n| usize::from(*n)).sum::<usize>();
    (counts[3] > 0).then_some(())?;
    for _ in 1..records {
        reader.record()?;
    }
    let at = reader.at;
    let last = reader.record()?;
    if last.sort != TSIG || reader.at != message.len() {
        return None;
    }
    let mut data = Reader {
        message: last.content,
        at: 0,
    };
    data.name()?;
    let (time, fudge, length) = (data.take(6)?, data.number()?, data.number()?);
    let (mac, id) = (data.take(usize::from(length))?, data.take(2)?);
    let rest = &last.content[data.at..];
    (rest.len() >= 4).then_some(())?;
    Some(Signature {
        at,
        time,
        fudge,
        mac,
        id: id.try_into().ok()?,
        rest,
    })
}

struct Entry<'a> {
    sort: u16,
    content: &'a [u8],
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// Passes a name; one that goes on elsewhere ends here.
    fn name(&mut self) -> Option<()> {
        loop {
            match *self.take(1)?.first()? {
                0 => return Some(()),
                length @ 1..=63 => drop(self.take(usize::from(length))?),
                0xc0.. => {
                    self.take(1)?;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Passes head and questions; answers the four counts.
    fn head(&mut self) -> Option<[u16; 4]> {
        self.take(4)?;
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = self.number()?;
        }
        for _ in 0..counts[0] {
            self.name()?;
            self.take(4)?;
        }
        Some(counts)
    }

    fn record(&mut self) -> Option<Entry<'a>> {
        self.name()?;
        let sort = self.number()?;
        // Class and life.
        self.take(6)?;
        let length = self.number()?;
        let content = self.take(usize::from(length))?;
        Some(Entry { sort, content })
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

    fn answer() -> Vec<u8> {
        let mut message = head(7, 0x8400, [1, 1, 0, 1]);
        message.extend(name("a.b").unwrap());
        message.extend([TXT, IN].map(u16::to_be_bytes).concat());
        message.extend([0xc0, 12]);
        message.extend([TXT, IN].map(u16::to_be_bytes).concat());
        message.extend([0, 0, 0, 120, 0, 6]);
        message.extend(b"\x02ab\x02cd");
        message.extend(name("key").unwrap());
        message.extend([TSIG, 255].map(u16::to_be_bytes).concat());
        let data = [
            name("hmac-sha256").unwrap(),
            vec![0, 0, 0, 0, 0, 9, 1, 44, 0, 2, 0xaa, 0xbb, 0, 7, 0, 0, 0, 0],
        ]
        .concat();
        message.extend([0; 4]);
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
        message
    }

    #[test]
    fn texts_and_the_signature_are_found() {
        let message = answer();
        assert_eq!(texts(&message), [b"abcd".to_vec()]);
        let found = signature(&message).unwrap();
        assert_eq!(
            (found.mac, found.fudge, found.id),
            (&[0xaa, 0xbb][..], 300, [0, 7])
        );
        assert_eq!(found.rest, [0; 4]);
        // One byte behind it, and it is not the last.
        assert!(signature(&[message, vec![0]].concat()).is_none());
    }

    /// No bytes make it panic, and what is cut short is not signed.
    #[test]
    fn bytes_from_outside() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(8945);
        let good = answer();
        for cut in 0..good.len() {
            assert!(signature(&good[..cut]).is_none(), "{cut} bytes");
        }
        for _ in 0..200_000 {
            let mut bytes = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            texts(&bytes);
            signature(&bytes);
        }
    }
}
