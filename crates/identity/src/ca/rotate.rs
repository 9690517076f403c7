//! A new CA takes the place of the present one: made and signed by the one before, shown at once, the one before trusted
//! for a while. Each step may be cut short and run again.

use super::generation::{Next, Old, One, Standing, save};
use super::issue::Below;
use super::kind::{self, AuthorityStatus, CaKind, INTERNAL};
use super::{Ca, common_name, issue, make_server, note};
use crate::certificate::{Certificate, Issuer as By, material};
use crate::files;
use model::{Error, Result, Timestamp};
use runtime::{CaCertificate, Cx, Proc, Undo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long the task waits for the certificates of services; they go on being issued after it.
const PATIENCE: Duration = Duration::from_secs(300);

/// How the present CA is replaced.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateParams {
    /// For how many days the present CA is trusted on beside the new one. Logins that it signed are good as long; 0 when
    /// somebody else may have its key.
    #[serde(default = "thirty")]
    #[schemars(range(min = 0, max = 365))]
    pub overlap_days: u32,
}

fn thirty() -> u32 {
    30
}

/// Which CAs are retired.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetireParams {
    /// Only those whose time is over; else all but the present one.
    #[serde(default)]
    pub due: bool,
}

/// Throws a CA away that never signed anything for others.
pub(super) static ABANDON: Undo = Undo {
    name: "ca.abandon",
    run: |cx, args| {
        Box::pin(async move {
            let by: String = serde_json::from_value(args)
                .map_err(|e| Error::internal("arguments of ca.abandon").because(e))?;
            let ca = kind::of(&cx)?;
            kind::off(move || ca.abandon(&by)).await
        })
    },
};

/// The procedure.
pub(super) async fn rotate(proc: Proc) -> Result<Value> {
    let params: RotateParams = proc.params()?;
    let cx = proc.cx();
    let by = proc.name().to_owned();
    let fingerprint: String = proc
        .undoable("make", ABANDON.with(&by), || async {
            let (ca, by) = (kind::of(cx)?, by.clone());
            kind::off(move || ca.prepare(&by)).await
        })
        .await?;
    let overlap = Duration::from_secs(u64::from(params.overlap_days) * 86_400);
    let until: Timestamp = proc
        .step("decide", || async { Ok(cx.clock().now().plus(overlap)) })
        .await?;
    proc.point_of_no_return().await?;
    proc.step("switch", || async {
        let (ca, by) = (kind::of(cx)?, by.clone());
        kind::off(move || ca.switch(&by, until)).await?;
        kind::wake(cx);
        Ok(())
    })
    .await?;
    proc.log(format!(
        "the new CA is {fingerprint}; the one before is trusted until {until}: log in anew before"
    ))
    .await;
    let left: Vec<String> = proc.step("reissue", || reissue(cx)).await?;
    if params.overlap_days == 0 {
        proc.step("retire", || async { retire(cx, true).await.map(drop) })
            .await?;
    }
    Ok(json!({ "fingerprint": fingerprint, "trusted_until": until, "not_reissued": left }))
}

/// Waits until every certificate of a service is of the present CA. Answers those that are not yet; their controller goes
/// on.
async fn reissue(cx: &Cx) -> Result<Vec<String>> {
    let ca = kind::of(cx)?;
    let mut deltas = cx.cache().subscribe();
    let left = || {
        let present = ca.name();
        let mut left = Vec::new();
        for one in cx.list::<Certificate>(None) {
            let Some(chain) = &one.spec.chain else {
                continue;
            };
            let facts = material::read(chain).ok().map(|(_, facts)| facts);
            let of_another = facts.is_some_and(|facts| {
                facts.issued_by != present && ca.revocation(&facts.fingerprint).is_none()
            });
            if one.spec.issuer == By::Internal && of_another {
                left.push(one.metadata.name.to_string());
            }
        }
        left
    };
    let all = async {
        while !left().is_empty() {
            if deltas.recv().await.is_err() {
                // Too slow for the deltas: look again.
                tokio::task::yield_now().await;
            }
        }
    };
    _ = tokio::time::timeout(PATIENCE, all).await;
    Ok(left())
}

/// Ends the trust in CAs before the present one; answers whose.
pub(super) async fn retire(cx: &Cx, due: bool) -> Result<Value> {
    let ca = kind::of(cx)?;
    let retired = kind::off(move || ca.retire(due)).await?;
    cx.wake(&cx.key::<CaKind>(None, INTERNAL));
    Ok(json!({ "retired": retired }))
}

impl Ca {
    /// All generations, the present one first.
    pub(super) fn authorities(&self) -> Vec<AuthorityStatus> {
        let standing = self.standing();
        let one = |one: &One, state, until| AuthorityStatus {
            id: one.id.clone(),
            subject: one.name.clone(),
            fingerprint: one.public.fingerprint.clone(),
            state,
            until: Some(until),
        };
        let current = &standing.current;
        let mut all = vec![one(current, kind::Standing::Current, current.not_after)];
        all.extend(standing.old.iter().map(|(old, how)| {
            let state = match how.retired {
                true => kind::Standing::Retired,
                false => kind::Standing::Trusted,
            };
            one(old, state, how.until)
        }));
        all
    }

    /// Makes the CA that comes next, for a task; answers its fingerprint. Asked again, it is the same one.
    ///
    /// # Errors
    /// When the pki folder cannot be written.
    pub fn prepare(&self, by: &str) -> Result<String> {
        let mut generations = self.generations.lock();
        let folder = &self.config.folder;
        let id = format!("ca-{}", generations.after());
        if generations.current_by.as_deref() == Some(by) {
            return Ok(self.current().public.fingerprint.clone());
        }
        let made = generations.next.as_ref().filter(|next| next.by == by);
        if made.is_none() {
            let number = generations.after();
            generations.set(folder, |g| {
                g.next = Some(Next {
                    id: id.clone(),
                    by: by.to_owned(),
                });
            })?;
            let now = (self.config.now)();
            let current = self.current();
            let made = issue::authority(&self.config.cluster, number, now)?;
            let (_, new) = x509_parser::parse_x509_certificate(&made.der)
                .map_err(|e| Error::internal("cannot read back a new CA").because(e))?;
            let below = Below {
                name: common_name(&new),
                key: new.public_key().raw,
                names: None,
            };
            let cross = issue::cross(current.signer()?, &below, now, current.not_after)?;
            note(&mut self.log.lock(), &cross.der, now, &current.id)?;
            save(folder, &self.around, &id, &made)?;
            let at = folder.join(format!("{id}.cross.pem"));
            files::write(&at, &cross.certificate, 0o644)?;
        } else if !folder.join(format!("{id}.cross.pem")).exists() {
            // Cut short in the middle: nothing of it was shown to anybody.
            generations.set(folder, |g| g.next = None)?;
            drop(generations);
            return self.prepare(by);
        }
        let one = self.load(&id, false)?;
        Ok(one.public.fingerprint.clone())
    }

    /// Throws the next CA away, if it was made for this task.
    pub(super) fn abandon(&self, by: &str) -> Result<()> {
        let mut generations = self.generations.lock();
        let folder = &self.config.folder;
        let Some(next) = generations.next.clone().filter(|next| next.by == by) else {
            return Ok(());
        };
        for file in ["key", "pem", "cross.pem"] {
            remove(&folder.join(format!("{}.{file}", next.id)))?;
        }
        generations.set(folder, |g| g.next = None)
    }

    /// Lets the next CA sign; the present one is trusted on until then.
    ///
    /// # Errors
    /// When this task has made none, or the pki folder cannot be written.
    pub fn switch(&self, by: &str, until: Timestamp) -> Result<()> {
        let mut generations = self.generations.lock();
        if generations.current_by.as_deref() != Some(by) {
            let Some(next) = generations.next.clone().filter(|next| next.by == by) else {
                return Err(
                    Error::refused("there is no next CA that this task has made")
                        .hint("`dvctl ca rotate internal` again"),
                );
            };
            // It can be used, or nothing is changed.
            self.load(&next.id, false)?;
            generations.set(&self.config.folder, |g| {
                g.old.push(Old {
                    id: std::mem::replace(&mut g.current, next.id),
                    until,
                    retired: false,
                });
                g.current_by = Some(by.to_owned());
                g.next = None;
            })?;
        }
        if self.current().id != generations.current {
            let standing = Standing::open(&self.config, &self.around, &generations)?;
            self.stand(standing)?;
        }
        // Those of other regions are below the new one, too.
        self.sign_federated_anew()
    }

    /// Ends the trust in CAs before the present one: all, or those whose time is over. Their last lists stay, their keys
    /// are erased. Answers their fingerprints.
    ///
    /// # Errors
    /// When the pki folder cannot be written.
    pub fn retire(&self, due: bool) -> Result<Vec<String>> {
        let mut generations = self.generations.lock();
        let (folder, now) = (&self.config.folder, (self.config.now)());
        let before = self.standing();
        let over = |old: &Old| !old.retired && (!due || old.until <= now);
        let mut retired = Vec::new();
        for (one, _) in before.old.iter().filter(|(_, old)| over(old)) {
            let list = self.last_list(one)?;
            files::write_bytes(&folder.join(format!("{}.crl", one.id)), &list, 0o644)?;
            retired.push(one.public.fingerprint.clone());
        }
        if retired.is_empty() {
            return Ok(retired);
        }
        generations.set(folder, |g| {
            for old in g.old.iter_mut().filter(|old| over(old)) {
                old.retired = true;
                old.until = old.until.min(now);
            }
        })?;
        let standing = Standing::open(&self.config, &self.around, &generations)?;
        self.stand(standing)?;
        Ok(retired)
    }

    /// Makes it known how the generations stand, and shows a certificate of the present one.
    fn stand(&self, standing: Standing) -> Result<()> {
        let now = (self.config.now)();
        let made = make_server(
            &self.config,
            &self.around,
            &standing,
            &mut self.log.lock(),
            now,
        )?;
        let trusted = trusted(&standing);
        *self.standing.write() = Arc::new(standing);
        // Who comes with a certificate of the new one must be let in before anybody is led to it.
        self.trusted.send_replace(trusted);
        self.shown.send_replace(Arc::new(made));
        Ok(())
    }
}

/// The certificates of those that are trusted.
pub(super) fn trusted(standing: &Standing) -> Arc<Vec<CaCertificate>> {
    Arc::new(standing.trusted().map(|one| one.public.clone()).collect())
}

fn remove(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("cannot remove {}", path.display())).because(e))
        }
        _ => Ok(()),
    }
}
