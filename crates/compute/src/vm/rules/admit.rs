//! What a VM passes on its way into the store: pinned, checked, given its number and its addresses.

use super::super::Vm;
use super::super::types::{Power, VmSpec};
use super::{check, pin};
use model::{Bytes, Error, Result, Violation};
use network::{Held, Wish, allocate};
use runtime::Draft;

/// Space of the unique numbers.
const NUMBERS: &str = "vm-number";
/// First number.
const FIRST: u32 = 100;

/// Pins, checks and allocates.
pub fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let old = draft.old_spec::<Vm>()?;
    let mut spec = draft.spec::<Vm>()?;
    pin(&mut spec, old.as_ref());
    request(&mut spec, old.as_ref());
    let mut wrong = check(&spec);
    wrong.extend(moved(&spec, old.as_ref()));
    wrong.extend(names(&spec, &draft.meta.name));
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    number(draft, &mut spec)?;
    let held: Vec<Held> = old
        .iter()
        .flat_map(|o| &o.nics)
        .map(|nic| Held {
            network: nic.network.clone(),
            mac: nic.mac.clone(),
            ipv4: nic.ipv4.clone(),
            ipv6: nic.ipv6.clone(),
        })
        .collect();
    let mut wishes: Vec<Wish<'_>> = spec
        .nics
        .iter_mut()
        .enumerate()
        .map(|(i, nic)| Wish {
            field: format!("spec.nics[{i}]"),
            network: &nic.network,
            mac: &mut nic.mac,
            ipv4: &mut nic.ipv4,
            ipv6: &mut nic.ipv6,
        })
        .collect();
    allocate(draft, &held, &mut wishes)?;
    drop(wishes);
    draft.set_spec::<Vm>(&spec)
}

/// Switching on is a request to start, also for a guest that had shut itself down.
fn request(spec: &mut VmSpec, old: Option<&VmSpec>) {
    let Some(old) = old else { return };
    spec.starts = spec.starts.max(old.starts);
    if old.power == Power::Off && spec.power != Power::Off && spec.starts == old.starts {
        spec.starts += 1;
    }
}

/// What is fixed once a disk exists.
fn moved(spec: &VmSpec, old: Option<&VmSpec>) -> Vec<Violation> {
    let mut out = Vec::new();
    for (i, disk) in spec.disks.iter().enumerate() {
        let Some(was) = old
            .iter()
            .flat_map(|o| &o.disks)
            .find(|d| d.name == disk.name)
        else {
            continue;
        };
        for (field, same) in [
            ("volume", disk.volume == was.volume),
            ("image", disk.image == was.image),
            ("pool", disk.pool == was.pool),
            ("format", disk.format == was.format),
        ] {
            if !same {
                out.push(
                    Violation::new(
                        format!("spec.disks[{i}].{field}"),
                        format!("cannot change: disk `{}` is made", disk.name),
                    )
                    .hint("add a disk with another name"),
                );
            }
        }
        if let Some(size) = was.size
            && disk.size.is_none_or(|s| s < size)
        {
            out.push(
                Violation::new(
                    format!("spec.disks[{i}].size"),
                    format!(
                        "{} is less than the {size} that disk `{}` has",
                        disk.size.unwrap_or(Bytes(0)),
                        disk.name
                    ),
                )
                .hint("a disk only grows"),
            );
        }
    }
    out
}

/// Volumes of inline disks are named after the VM and the disk, which must make a name.
fn names(spec: &VmSpec, vm: &str) -> Vec<Violation> {
    let too_long = |name: &str| vm.len() + 1 + name.len() > 63;
    spec.disks
        .iter()
        .filter(|d| d.inline() && too_long(&d.name))
        .map(|d| {
            Violation::new(
                "metadata.name",
                format!(
                    "`{vm}-{}` would be the name of a volume and has more than 63 characters",
                    d.name
                ),
            )
            .hint("choose a shorter name for the VM or the disk")
        })
        .collect()
}

fn number(draft: &mut Draft<'_>, spec: &mut VmSpec) -> Result<()> {
    if let Some(number) = spec.number {
        let text = number.to_string();
        if draft.holds_key(NUMBERS, &text) {
            return Ok(());
        }
        if draft.key_taken(NUMBERS, &text) {
            return Err(Error::invalid(vec![
                Violation::new(
                    "spec.number",
                    format!("{number} is the number of another VM"),
                )
                .hint("leave it out to have one chosen"),
            ]));
        }
        draft.claim_key(NUMBERS, &text);
        return Ok(());
    }
    let free = free_number(&|n| draft.key_taken(NUMBERS, &n.to_string()));
    draft.claim_key(NUMBERS, &free.to_string());
    spec.number = Some(free);
    Ok(())
}

/// A free number, a low one, in few looks: a taken one and a free one above it are brought together.
pub(super) fn free_number(taken: &dyn Fn(u32) -> bool) -> u32 {
    if !taken(FIRST) {
        return FIRST;
    }
    let (mut low, mut step) = (FIRST, 1);
    while taken(low + step) {
        low += step;
        step *= 2;
    }
    let mut high = low + step;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if taken(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}
