//! One upload: parts come in order, it may stop and go on, and it becomes a blob when it is whole.

use super::{Blob, BlobError, Digest, Folder, Goes, PARTS, check_name, hash_file, place, remove};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// After so many bytes what is there is made durable and its length noted: where to go on after a power cut.
const NOTED_EVERY: u64 = 16 << 20;

/// An upload that this caller alone writes. Dropping it keeps what is there for going on later.
pub struct Upload {
    id: String,
    most: u64,
    /// `None` only while a thread works on it; lost when its caller does not wait for that.
    state: Option<State>,
}

struct State {
    folder: Arc<Folder>,
    id: String,
    file: File,
    path: PathBuf,
    note: PathBuf,
    offset: u64,
    noted: u64,
    /// The digest so far; unknown when the upload went on from an earlier run.
    hash: Option<Sha256>,
}

impl Drop for State {
    /// Frees the upload when the last thread that writes it is done, and remembers its length while we run.
    fn drop(&mut self) {
        let mut writing = self.folder.writing.lock();
        writing.remove(&self.id);
        self.folder
            .left
            .lock()
            .insert(std::mem::take(&mut self.id), self.offset);
    }
}

impl Upload {
    pub(super) fn begin(folder: &Arc<Folder>, id: String, most: u64) -> Result<Upload, BlobError> {
        check_name(&id)?;
        if id.contains('.') {
            return Err(BlobError::BadName {
                name: id,
                wants: "an upload id without `.`",
            });
        }
        let parts = folder.dir.join(PARTS);
        let (path, note) = (
            parts.join(format!("{id}.part")),
            parts.join(format!("{id}.note")),
        );
        let failed = |e| BlobError::io("opening the upload", &path, e);
        let mut writing = folder.writing.lock();
        if writing.contains(&id) {
            return Err(BlobError::Busy(id));
        }
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = open.map_err(failed)?;
        let there = file.metadata().map_err(failed)?.len();
        // Behind the note a power cut may have left anything; what this process wrote itself is sound.
        let noted = fs::read_to_string(&note)
            .ok()
            .and_then(|n| n.trim().parse::<u64>().ok())
            .unwrap_or(0);
        let offset = folder
            .left
            .lock()
            .remove(&id)
            .unwrap_or(0)
            .max(noted)
            .min(there);
        file.set_len(offset).map_err(failed)?;
        writing.insert(id.clone());
        let hash = (offset == 0).then(Sha256::new);
        let folder = folder.clone();
        let state = State {
            folder,
            id: id.clone(),
            file,
            path: path.clone(),
            note,
            offset,
            noted: noted.min(offset),
            hash,
        };
        Ok(Upload {
            id,
            most,
            state: Some(state),
        })
    }

    /// How many bytes are there: where the next part must begin.
    pub fn offset(&self) -> u64 {
        self.state.as_ref().map_or(0, |s| s.offset)
    }

    /// Adds a part that begins at `offset`. Nothing is added when this fails.
    pub async fn write(&mut self, offset: u64, part: Bytes) -> Result<u64, BlobError> {
        let has = self.offset();
        if offset != has {
            return Err(BlobError::WrongOffset {
                upload: self.id.clone(),
                has,
                given: offset,
            });
        }
        if has + part.len() as u64 > self.most {
            return Err(BlobError::TooLarge {
                upload: self.id.clone(),
                most: self.most,
            });
        }
        self.blocking(move |state| {
            let failed = |e| BlobError::io("writing the upload", &state.path, e);
            if let Err(error) = state.file.write_all_at(&part, state.offset) {
                let _ = state.file.set_len(state.offset);
                return Err(failed(error));
            }
            state.offset += part.len() as u64;
            if let Some(hash) = &mut state.hash {
                hash.update(&part);
            }
            if state.offset - state.noted >= NOTED_EVERY {
                state.note()?;
            }
            Ok(state.offset)
        })
        .await
    }

    /// Makes what is there durable, so that going on needs none of it again.
    pub async fn pause(mut self) -> Result<u64, BlobError> {
        self.blocking(|state| {
            state.note()?;
            Ok(state.offset)
        })
        .await
    }

    /// Makes a blob of what was uploaded. When `expected` is given and the content differs, the upload is thrown
    /// away. Answers the blob and its digest.
    pub async fn finish(
        mut self,
        goes: Goes,
        expected: Option<Digest>,
    ) -> Result<(Blob, Digest), BlobError> {
        let id = self.id.clone();
        self.blocking(move |state| {
            state
                .file
                .sync_all()
                .map_err(|e| BlobError::io("syncing the upload", &state.path, e))?;
            let found = match state.hash.take() {
                Some(hash) => Digest(hash.finalize().into()),
                None => hash_file(&state.path)?,
            };
            if let Some(expected) = expected.filter(|e| *e != found) {
                remove(&state.path)?;
                remove(&state.note)?;
                state.offset = 0;
                return Err(BlobError::WrongDigest {
                    upload: id,
                    expected,
                    found,
                });
            }
            let blob = place(&state.path, &state.folder.target(&goes, &found)?)?;
            remove(&state.note)?;
            state.offset = 0;
            Ok((blob, found))
        })
        .await
    }

    /// Throws away what was uploaded.
    pub async fn cancel(mut self) -> Result<(), BlobError> {
        self.blocking(|state| {
            remove(&state.path)?;
            remove(&state.note)?;
            state.offset = 0;
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut State) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let gone = || {
            BlobError::Thread(
                "an earlier part was given up half-way; begin the upload again".into(),
            )
        };
        let mut state = self.state.take().ok_or_else(gone)?;
        let done = tokio::task::spawn_blocking(move || {
            let answer = work(&mut state);
            (state, answer)
        });
        let (state, answer) = done.await.map_err(|e| BlobError::Thread(e.to_string()))?;
        self.state = Some(state);
        answer
    }
}

impl State {
    fn note(&mut self) -> Result<(), BlobError> {
        let failed = |e: io::Error| BlobError::io("noting the length of the upload", &self.note, e);
        let part = self.note.with_extension("note-part");
        self.file.sync_data().map_err(failed)?;
        fs::write(&part, self.offset.to_string()).map_err(failed)?;
        File::open(&part)
            .and_then(|f| f.sync_all())
            .map_err(failed)?;
        fs::rename(&part, &self.note).map_err(failed)?;
        self.noted = self.offset;
        Ok(())
    }
}
