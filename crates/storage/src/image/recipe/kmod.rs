//! Which kernel modules are needed, in the order in which they must be loaded, read from the modules themselves. It
//! never runs `modprobe` or `depmod`, which a machine that builds images need not have.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules of one kernel.
pub(super) struct Modules {
    by_name: BTreeMap<String, PathBuf>,
    builtin: String,
}

/// The name the kernel uses: without folder and suffix, `_` for `-`.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

impl Modules {
    /// Finds the modules under `folder` (`lib/modules/VERSION`).
    pub(super) fn scan(folder: &Path) -> Result<Self> {
        let builtin =
            std::fs::read_to_string(folder.join("modules.builtin")).with_context(|| {
                format!(
                    "reading the kernel's built-in modules in {}",
                    folder.display()
                )
            })?;
        let mut by_name = BTreeMap::new();
        let mut folders = vec![folder.join("kernel")];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(&next)
                .with_context(|| format!("reading the module folder {}", next.display()))?
            {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(name) = path
                    .file_name()
                    .and_then(|n| n.to_str())
                    .and_then(|n| n.strip_suffix(".ko"))
                {
                    by_name.insert(canonical(name), path);
                }
            }
        }
        Ok(Self { by_name, builtin })
    }

    /// The files of `wanted` and all they depend on, dependencies first. What is built into the kernel is left out.
    pub(super) fn closure(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for name in wanted {
            self.visit(&canonical(name), &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, order: &mut Vec<PathBuf>) -> Result<()> {
        let Some(path) = self.by_name.get(name) else {
            let built_in = self
                .builtin
                .lines()
                .filter_map(|l| l.rsplit('/').next()?.strip_suffix(".ko"))
                .any(|b| canonical(b) == name);
            if built_in {
                return Ok(());
            }
            bail!("the kernel has no module `{name}`, neither as a file nor built in");
        };
        if order.contains(path) {
            return Ok(());
        }
        let bytes = std::fs::read(path)
            .with_context(|| format!("reading the module {}", path.display()))?;
        for dependency in depends(&bytes) {
            self.visit(&canonical(&dependency), order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// The `depends=` entry of a module's `.modinfo` section, which is a list of NUL-ended strings.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|w| w == KEY) else {
        return Vec::new();
    };
    let rest = &module[start + KEY.len()..];
    let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|d| !d.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel/drivers");
        std::fs::create_dir_all(&kernel).unwrap();
        std::fs::write(
            folder.path().join("modules.builtin"),
            "kernel/fs/base-part.ko\n",
        )
        .unwrap();
        for (name, depends) in [
            ("net-card", "ring,base_part"),
            ("blk", "ring"),
            ("ring", ""),
        ] {
            std::fs::write(
                kernel.join(format!("{name}.ko")),
                format!("ELF..\0license=GPL\0depends={depends}\0x=y\0"),
            )
            .unwrap();
        }
        let modules = Modules::scan(folder.path()).unwrap();
        let names: Vec<_> = modules
            .closure(&["net_card", "blk"])
            .unwrap()
            .iter()
            .map(|p| p.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["ring.ko", "net-card.ko", "blk.ko"]);
        let error = modules.closure(&["ghost"]).unwrap_err().to_string();
        assert!(error.contains("`ghost`"), "{error}");
    }
}
