//! The rules of the tree that a compiler does not check. Each rule looks at the whole tree and answers with sentences that name a file and a remedy; it changes nothing.

mod adr;
mod files;
mod imports;
mod links;
mod words;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::tree;

/// What one rule found wrong; empty when all is well.
type Faults = Vec<String>;

/// A text file of the checkout.
struct Text {
    /// Relative to the root.
    path: PathBuf,
    text: String,
}

impl Text {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn has_extension(&self, wanted: &str) -> bool {
        self.path
            .extension()
            .is_some_and(|extension| extension == wanted)
    }
}

/// `cargo xtask tidy`.
pub fn command() -> Result<()> {
    let texts = texts()?;
    let rules: [(&str, Faults); 5] = [
        ("import table", imports::check()?),
        ("files", files::check(&texts)),
        ("words", words::check(&texts)),
        ("decisions", adr::check(&texts)),
        ("links", links::check(&texts, &tree::root())),
    ];
    let mut count = 0;
    for (rule, faults) in &rules {
        for fault in faults {
            eprintln!("tidy: {rule}: {fault}");
        }
        count += faults.len();
    }
    if count > 0 {
        bail!("tidy found {count} faults");
    }
    println!(
        "tidy: {} rules over {} files, no fault",
        rules.len(),
        texts.len()
    );
    Ok(())
}

/// Every tracked file that is text.
fn texts() -> Result<Vec<Text>> {
    let root = tree::root();
    let mut texts = Vec::new();
    for path in tree::files()? {
        let bytes = std::fs::read(root.join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            texts.push(Text { path, text });
        }
    }
    Ok(texts)
}
