//! The disk under the daemon's state: full, and with a damaged store file.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use system_tests::{Instance, alive, run, until};

use crate::{
    harness::Stage,
    transcript::{state, uptime},
};

/// A small file system of its own under an instance's folder.
struct Small {
    on: Option<Instance>,
    image: PathBuf,
    at: PathBuf,
}

impl Small {
    fn up(name: &str, options: &[&str]) -> Result<Small> {
        let on = Instance::fresh(name)?;
        let (image, at) = (
            std::env::temp_dir().join(format!("dv-{name}.ext4")),
            on.dir(),
        );
        fs::create_dir_all(&at)?;
        File::create(&image)?.set_len(1 << 30)?;
        let short = Duration::from_secs(60);
        run(
            Command::new("mkfs.ext4")
                .args(["-q", "-m", "0"])
                .arg(&image),
            short,
        )?
        .ok()?;
        run(
            Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &at]),
            short,
        )?
        .ok()?;
        let small = Small {
            on: Some(on),
            image,
            at,
        };
        small.on()?.again(options)?.ok()?;
        Ok(small)
    }

    fn on(&self) -> Result<&Instance> {
        self.on.as_ref().context("the instance is gone")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Some(on) = &self.on {
            // Its folder cannot be removed while something is mounted on it; all that holds it busy is gone then.
            let _ = on.down(&["--guests"]);
        }
        let unmounted = run(
            Command::new("umount").arg(&self.at),
            Duration::from_secs(60),
        );
        if let Err(error) = unmounted.and_then(system_tests::Outcome::ok) {
            eprintln!("{} is still mounted: {error:#}", self.at.display());
        }
        drop(self.on.take());
        let _ = fs::remove_file(&self.image);
    }
}

/// An image for which the pool has no room: it fails, says why, and leaves nothing.
fn too_big(on: &Instance) -> Result<()> {
    let short = Duration::from_secs(60);
    let (ballast, disk) = (
        on.dir().join("ballast"),
        std::env::temp_dir().join(format!("dv-{}-big.raw", on.name())),
    );
    let mut df = Command::new("df");
    df.args(["-B1", "--output=avail"]).arg(on.dir());
    let free = run(&mut df, short)?.ok()?.out;
    let free: u64 = free
        .lines()
        .nth(1)
        .context("df said nothing")?
        .trim()
        .parse()?;
    let room = 40u64 << 20;
    let mut take = Command::new("fallocate");
    take.arg("-l").arg((free - room).to_string()).arg(&ballast);
    run(&mut take, short)?.ok()?;
    // Noise, so that it takes as much as it has bytes.
    let mut noise = Command::new("dd");
    noise.args(["if=/dev/urandom", "bs=1M", "count=96", "status=none"]);
    run(noise.arg(format!("of={}", disk.display())), short)?.ok()?;
    let failed = (|| -> Result<()> {
        let source = format!("file={},format=raw", disk.display());
        on.dvctl(&["image", "create", "too-big", "--source", &source])?;
        until("the import has failed", Duration::from_secs(60), || {
            let shown = on.show("image", "too-big")?;
            let failed = shown["status"]["state"] == "failed";
            ensure!(shown["status"]["state"] != "ready", "it fitted: {shown}");
            let said = shown["status"]["message"].as_str().unwrap_or_default();
            ensure!(
                !failed || said.contains("space") || said.contains("room"),
                "{said}"
            );
            Ok(failed.then_some(()))
        })?;
        on.dvctl(&["image", "delete", "too-big", "--yes"])?.ok()?;
        until("the image is gone", Duration::from_secs(60), || {
            Ok((on.dvctl(&["image", "show", "too-big"])?.code == 4).then_some(()))
        })
    })();
    fs::remove_file(&disk)?;
    fs::remove_file(&ballast)?;
    failed
}

/// Takes all the space that is left.
fn fill(path: &PathBuf) -> Result<()> {
    let mut ballast = File::create(path)?;
    for size in [1 << 20, 1 << 12, 1] {
        let block = vec![b'x'; size];
        while ballast.write_all(&block).is_ok() {}
    }
    // What was only promised by the page cache is space too.
    let _ = ballast.sync_all();
    Ok(())
}

/// A change that needs some space in the store.
fn write(on: &Instance, n: usize) -> Result<system_tests::Outcome> {
    let (name, filler) = (format!("fill-{n}"), "x".repeat(48 << 10));
    let file = std::env::temp_dir().join(format!("dv-{}-fill.yaml", on.name()));
    fs::write(
        &file,
        format!(
            "version: v1\nkind: vm\nmetadata: {{name: {name}}}\nspec: {{memory: 128MiB, cloud_init: {{user_data: \"#cloud-config\\n# {filler}\"}}}}\n"
        ),
    )?;
    let said = on.dvctl(&["apply", "-f", &file.display().to_string()]);
    fs::remove_file(&file)?;
    said
}

pub fn full(_: &mut Stage) -> Result<()> {
    let small = Small::up("systest3", &["--tiny"])?;
    let on = small.on()?;
    let qemu = on.qemu("hello").context("`hello` does not run")?;
    let before = uptime(on, "hello")?;
    let daemons = (on.daemons("api"), on.daemons("agent"));

    too_big(on).context("an import into a pool without room")?;

    let ballast = on.dir().join("ballast");
    fill(&ballast)?;
    // What stands in blocks that the store has already may still be written over.
    let mut n = 0;
    let refused = until("a change is refused", Duration::from_secs(60), || {
        n += 1;
        let said = write(on, n)?;
        Ok((said.code != 0).then_some(said))
    })?;
    refused.says(&["space"])?;
    for kind in ["vm", "network", "image"] {
        on.dvctl(&[kind, "list"])?.ok()?;
    }
    state(on, "hello", "running")?;
    let (status, said) = on.ask("/health/ready")?;
    ensure!(status == 503, "ready on a full disk: {said}");
    let (_, said) = on.ask("/health/detail")?;
    ensure!(
        said.contains("make room"),
        "health does not say what to do: {said}"
    );
    ensure!(alive(qemu), "the guest went when the disk was full");

    fs::remove_file(&ballast)?;
    until("changes are taken again", Duration::from_secs(60), || {
        Ok((write(on, n)?.code == 0).then_some(()))
    })?;
    on.ready(Duration::from_secs(30))?;
    ensure!(
        daemons == (on.daemons("api"), on.daemons("agent")),
        "a daemon was started anew"
    );
    ensure!(on.qemu("hello") == Some(qemu), "another QEMU runs `hello`");
    ensure!(uptime(on, "hello")? >= before, "`hello` was booted again");
    on.dvctl(&["vm", "stop", "hello"])?.ok()?;
    on.dvctl(&["vm", "start", "hello"])?.ok()?;
    Ok(())
}

pub fn damaged_store(_: &mut Stage) -> Result<()> {
    let on = Instance::up("systest2", &["--bare"])?;
    let store = on.dir().join("store");
    on.dvctl(&["project", "create", "kept"])?.ok()?;
    // A copy that has it: there is one a day, and the first was made at the first start.
    on.down(&[])?.ok()?;
    for copy in fs::read_dir(store.join("copies"))?.flatten() {
        fs::remove_file(copy.path())?;
    }
    on.again(&["--bare"])?.ok()?;
    let offline = |words: &[&str]| {
        let mut tool = Command::new(on.daemon());
        tool.arg("store")
            .args(words)
            .arg("--config")
            .arg(on.config());
        run(&mut tool, Duration::from_secs(60))
    };
    let copy = until("there is a copy of today", Duration::from_secs(30), || {
        let listed = offline(&["copies"])?.ok()?.out;
        Ok(listed.lines().next().map(str::to_owned))
    })?;
    on.dvctl(&["project", "create", "lost"])?.ok()?;
    on.down(&[])?.ok()?;

    let file = store.join("store.db");
    let whole = fs::read(&file)?;
    File::options()
        .write(true)
        .open(&file)?
        .write_all_at(&[0x55; 8192], 0)?;
    let torn = fs::read(&file)?;
    let said = on.again(&["--bare"])?;
    ensure!(said.code != 0, "the api started on a damaged store");
    said.says(&["damaged", "debvisord store restore", &copy])?;
    ensure!(fs::read(&file)? == torn, "the damaged file was touched");
    ensure!(whole.len() == torn.len(), "the damage is in its middle");

    offline(&["restore"])?.ok()?.says(&[&copy, "is kept as"])?;
    on.again(&["--bare"])?.ok()?;
    on.dvctl(&["project", "show", "kept"])?.ok()?;
    on.dvctl(&["project", "show", "lost"])?.exit(4)?;
    on.dvctl(&["project", "create", "after"])?.ok()?;
    Ok(())
}
