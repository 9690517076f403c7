//! `cargo xtask deb`: the Debian package of the daemon and the CLI, made with dpkg-deb from our own binaries.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{packages, sh, tree};

/// Which binaries go into the package.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Optimised; what is given to people.
    Release,
    /// What the tests have built already.
    Dev,
}

/// Needed wherever the daemon runs.
const DEPENDS: &[&str] = &[
    "qemu-system-x86 (>= 1:8.2)",
    "qemu-utils (>= 1:8.2)",
    "dnsmasq-base",
    "nftables",
    "iproute2",
    "genisoimage",
    "systemd | systemd-standalone-sysusers",
];

/// Firmware, TPM, and what the image recipes use.
const RECOMMENDS: &[&str] = &[
    "ovmf",
    "swtpm",
    "swtpm-tools",
    "mmdebstrap",
    "gdisk",
    "mtools",
    "e2fsprogs",
    "busybox-static",
    "cpio",
    "zstd",
];

const DESCRIPTION: &str = "hypervisor manager for Debian\n DebVisor runs virtual machines with QEMU, gives them disks and networks, and\n offers them over REST, GraphQL, gRPC and the command line tool dvctl. Guests\n keep running while its daemons are restarted or upgraded.";

/// `cargo xtask deb`: prints where the package is.
pub fn command() -> Result<()> {
    packages::ensure(&[packages::Group::Build, packages::Group::Lab])?;
    let package = build(Profile::Release)?;
    println!("{}", package.display());
    Ok(())
}

/// Builds the binaries and the package, and answers where the package is.
pub fn build(profile: Profile) -> Result<PathBuf> {
    let mut cargo = tree::cargo();
    cargo.args(["build", "--locked", "-p", "debvisord", "-p", "dvctl"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    sh::run(&mut cargo)?;
    let folder = if profile == Profile::Release {
        "release"
    } else {
        "debug"
    };
    let built = tree::target().join(folder);
    let stage = tree::target().join("deb/root");
    let _ = fs::remove_dir_all(&stage);
    fill(&stage, &built)?;
    control(&stage)?;
    let version = env!("CARGO_PKG_VERSION");
    let architecture = architecture()?;
    let package = tree::target().join(format!("deb/debvisor_{version}_{architecture}.deb"));
    // Quick compression for a package that is only tested.
    let level = if profile == Profile::Release {
        ["-Zxz", "-z6"]
    } else {
        ["-Zzstd", "-z1"]
    };
    sh::output(
        Command::new("dpkg-deb")
            .args(level)
            .args(["--root-owner-group", "--build"])
            .arg(&stage)
            .arg(&package),
    )?;
    Ok(package)
}

/// One file of the package, from the checkout.
struct Item {
    from: &'static str,
    to: &'static str,
}

const FILES: &[Item] = &[
    Item {
        from: "packaging/debvisord.service",
        to: "usr/lib/systemd/system/debvisord.service",
    },
    Item {
        from: "packaging/debvisord-key.service",
        to: "usr/lib/systemd/system/debvisord-key.service",
    },
    Item {
        from: "packaging/debvisord.socket",
        to: "usr/lib/systemd/system/debvisord.socket",
    },
    Item {
        from: "packaging/debvisord-https.socket",
        to: "usr/lib/systemd/system/debvisord-https.socket",
    },
    Item {
        from: "packaging/debvisord-grpc.socket",
        to: "usr/lib/systemd/system/debvisord-grpc.socket",
    },
    Item {
        from: "packaging/debvisord-agent.service",
        to: "usr/lib/systemd/system/debvisord-agent.service",
    },
    Item {
        from: "packaging/debvisor.sysusers",
        to: "usr/lib/sysusers.d/debvisor.conf",
    },
    Item {
        from: "packaging/debvisor.tmpfiles",
        to: "usr/lib/tmpfiles.d/debvisor.conf",
    },
    Item {
        from: "packaging/debvisord.toml",
        to: "etc/debvisor/debvisord.toml",
    },
    Item {
        from: "packaging/debian/copyright",
        to: "usr/share/doc/debvisor/copyright",
    },
    Item {
        from: "LICENSE",
        to: "usr/share/doc/debvisor/LICENSE",
    },
    Item {
        from: "packaging/debian/lintian-overrides",
        to: "usr/share/lintian/overrides/debvisor",
    },
];

fn fill(stage: &Path, built: &Path) -> Result<()> {
    for item in FILES {
        put(
            stage,
            item.to,
            &fs::read(tree::root().join(item.from))
                .with_context(|| format!("cannot read {}", item.from))?,
            0o644,
        )?;
    }
    for program in ["debvisord", "dvctl"] {
        let to = stage.join("usr/bin").join(program);
        fs::create_dir_all(stage.join("usr/bin"))?;
        sh::output(
            Command::new("strip")
                .arg("-o")
                .arg(&to)
                .arg(built.join(program)),
        )?;
        fs::set_permissions(&to, PermissionsExt::from_mode(0o755))?;
    }
    for (from, to) in [
        ("packaging/debian/changelog", "changelog.gz"),
        ("CHANGELOG.md", "NEWS.gz"),
    ] {
        let text =
            fs::read(tree::root().join(from)).with_context(|| format!("cannot read {from}"))?;
        put(
            stage,
            &format!("usr/share/doc/debvisor/{to}"),
            &gzip(&text)?,
            0o644,
        )?;
    }
    put(
        stage,
        "usr/share/man/man8/debvisord.8.gz",
        &gzip(&fs::read(tree::root().join("packaging/debvisord.8"))?)?,
        0o644,
    )?;
    let dvctl = built.join("dvctl");
    for (shell, to) in [
        ("bash", "usr/share/bash-completion/completions/dvctl"),
        ("zsh", "usr/share/zsh/vendor-completions/_dvctl"),
        ("fish", "usr/share/fish/vendor_completions.d/dvctl.fish"),
    ] {
        put(
            stage,
            to,
            sh::output(Command::new(&dvctl).args(["completion", shell]))?.as_bytes(),
            0o644,
        )?;
    }
    manual(stage, built)
}

/// The manual pages of dvctl, which it makes from a registry: from that of the daemon in this package, served to it for a moment.
fn manual(stage: &Path, built: &Path) -> Result<()> {
    let pages = tree::target().join("deb/man");
    let _ = fs::remove_dir_all(&pages);
    fs::create_dir_all(&pages)?;
    let registry = sh::output(Command::new(built.join("debvisord")).args(["--print", "registry"]))?;
    let desk = Desk::open(registry)?;
    sh::output(
        Command::new(desk.dvctl(built)?)
            .arg("man")
            .arg(&pages)
            .env("XDG_CACHE_HOME", &desk.folder)
            .env_remove("DEBVISOR_INSTANCE"),
    )?;
    for page in fs::read_dir(&pages)? {
        let page = page?.path();
        let name = page
            .file_name()
            .and_then(|name| name.to_str())
            .context("a manual page without a name")?;
        put(
            stage,
            &format!("usr/share/man/man1/{name}.gz"),
            &gzip(&fs::read(&page)?)?,
            0o644,
        )?;
    }
    Ok(())
}

/// Answers every request with one JSON document, on a socket that only the dvctl beside it looks for.
struct Desk {
    folder: PathBuf,
}

impl Desk {
    fn open(document: String) -> Result<Desk> {
        let folder = std::env::temp_dir().join(format!("debvisor-deb-{}", std::process::id()));
        fs::create_dir_all(folder.join("bin"))?;
        let socket = folder.join("api.sock");
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot bind {}", socket.display()))?;
        fs::write(
            folder.join("default-instance"),
            socket.display().to_string(),
        )?;
        // Ends with the process: it holds nothing but the listener.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{document}",
                    document.len()
                );
                if stream.read(&mut request).is_err()
                    || stream.write_all(answer.as_bytes()).is_err()
                {
                    break;
                }
            }
        });
        Ok(Desk { folder })
    }

    /// dvctl under a name that makes it ask here.
    fn dvctl(&self, built: &Path) -> Result<PathBuf> {
        let name = self.folder.join("bin/dvctl");
        std::os::unix::fs::symlink(fs::canonicalize(built.join("dvctl"))?, &name)?;
        Ok(name)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn control(stage: &Path) -> Result<()> {
    let mut depends: Vec<String> = libraries(stage)?;
    depends.extend(DEPENDS.iter().map(|&name| name.to_owned()));
    let text = format!(
        "Package: debvisor\nVersion: {}\nArchitecture: {}\nMaintainer: The DebVisor authors <debvisor@debvisor.invalid>\nSection: admin\nPriority: optional\nInstalled-Size: {}\nDepends: {}\nRecommends: {}\nDescription: {DESCRIPTION}\n",
        env!("CARGO_PKG_VERSION"),
        architecture()?,
        sh::output(Command::new("du").args(["-sk"]).arg(stage))?
            .split_whitespace()
            .next()
            .unwrap_or("0"),
        depends.join(", "),
        RECOMMENDS.join(", "),
    );
    put(stage, "DEBIAN/control", text.as_bytes(), 0o644)?;
    put(
        stage,
        "DEBIAN/conffiles",
        b"/etc/debvisor/debvisord.toml\n",
        0o644,
    )?;
    for script in ["postinst", "prerm", "postrm"] {
        put(
            stage,
            &format!("DEBIAN/{script}"),
            &fs::read(tree::root().join("packaging/debian").join(script))?,
            0o755,
        )?;
    }
    Ok(())
}

/// The shared libraries our binaries link, as dependencies with versions.
fn libraries(stage: &Path) -> Result<Vec<String>> {
    let work = tree::target().join("deb/work");
    fs::create_dir_all(work.join("debian"))?;
    fs::write(
        work.join("debian/control"),
        "Source: debvisor\n\nPackage: debvisor\nArchitecture: any\n",
    )?;
    let binaries = ["debvisord", "dvctl"].map(|name| stage.join("usr/bin").join(name));
    let text = sh::output(
        Command::new("dpkg-shlibdeps")
            .arg("-O")
            .args(binaries)
            .current_dir(&work),
    )?;
    let list = text
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="))
        .unwrap_or_default();
    Ok(list
        .split(", ")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

fn architecture() -> Result<String> {
    Ok(
        sh::output(Command::new("dpkg").arg("--print-architecture"))?
            .trim()
            .to_owned(),
    )
}

fn put(stage: &Path, to: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let path = stage.join(to);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
    Ok(())
}

/// Compressed without name and time, so that the same input gives the same package.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .args(["-9", "-n", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = child.stdin.take();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || input.map_or(Ok(()), |mut input| input.write_all(bytes)));
        let output = child.wait_with_output()?;
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer to gzip panicked"))??;
        anyhow::ensure!(output.status.success(), "gzip failed: {}", output.status);
        Ok(output.stdout)
    })
}
