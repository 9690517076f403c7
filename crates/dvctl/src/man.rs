//! Manual pages from the same commands as the help: `dvctl(1)`, and one page per kind and per verb of a kind.

use crate::failure::{Failure, Result};
use crate::grammar;
use crate::session::Session;
use clap::{ArgMatches, Command};
use std::path::Path;

/// Writes the pages into a folder.
pub fn write(s: &Session, m: &ArgMatches) -> Result<()> {
    let folder = m.get_one::<String>("folder").map_or(".", String::as_str);
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder)
        .map_err(|e| Failure::io(format!("making {}", folder.display()), e))?;
    let mut pages = page(folder, "dvctl", grammar::root(Some(&s.registry), None))?;
    for kind in s.registry.all()? {
        let command = grammar::kind_command(&kind, None);
        let name = format!("dvctl-{}", kind.name);
        for verb in command.get_subcommands() {
            let page_name = format!("{name}-{}", verb.get_name());
            pages += page(folder, &page_name, verb.clone())?;
        }
        pages += page(folder, &name, command)?;
    }
    s.screen
        .put(&format!("{pages} pages in {}\n", folder.display()))
}

fn page(folder: &Path, name: &str, command: Command) -> Result<usize> {
    let file = folder.join(format!("{name}.1"));
    let wrong = |e: std::io::Error| Failure::io(format!("writing {}", file.display()), e);
    let mut text = Vec::new();
    let command = command
        .name(name.to_owned())
        .bin_name(name.replace('-', " "));
    clap_mangen::Man::new(command)
        .manual("DebVisor")
        .render(&mut text)
        .map_err(wrong)?;
    std::fs::write(&file, text).map_err(wrong)?;
    Ok(1)
}
