//! The command line, made from the registry: shapes of values, flags from schemas, commands from kinds.

mod audit;
mod command;
mod flag;
mod path;
mod shape;
mod verbs;

pub use command::{BUILTINS, Before, before, dotted, of_all, root};
pub use flag::{ACTION, Flag, flags_of};
pub use path::{Step, at, parse_path, put};
pub use shape::{Shape, word};
pub use verbs::{kind_command, kind_verbs};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    /// A command line as a shell splits it, up to a redirection.
    fn split(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for c in line.chars() {
            let here = words.len() - 1;
            match (quote, c) {
                (Some(q), c) if c == q => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, ' ') => words.push(String::new()),
                (None, '>' | '#') => break,
                (_, c) => words[here].push(c),
            }
        }
        words.retain(|w| !w.is_empty());
        words
    }

    /// Every example that a declaration gives must be a line that this program takes.
    #[test]
    fn examples_of_the_registry() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../api/registry.json");
        let json = match std::fs::read(&file) {
            Ok(json) => json,
            Err(_) => {
                eprintln!(
                    "SKIPPED: api/registry.json is not there; the tests' own registry is checked"
                );
                include_bytes!("../../tests/cli/registry.json").to_vec()
            }
        };
        let registry = Registry::parse(&json).unwrap();
        let mut wrong = String::new();
        for kind in registry.all().unwrap() {
            // clap finds flags that collide.
            root(Some(&registry), Some(kind_command(&kind, None))).debug_assert();
            let actions = kind.actions.iter().flat_map(|a| &a.examples);
            for example in kind.examples.iter().chain(actions) {
                let line = split(example);
                let before = before(&dotted(line[1..].to_vec()));
                if BUILTINS.iter().any(|(name, _)| *name == before.words[0]) {
                    if let Err(e) = root(None, None).try_get_matches_from(line) {
                        wrong += &format!("{example}: {e}\n");
                    }
                    continue;
                }
                let Ok(Some(used)) = registry.kind(&before.words[0]) else {
                    wrong += &format!("{example}: no such kind\n");
                    continue;
                };
                // As the program does it: what is no verb of the kind may be one of the object that is for all of them.
                let keeper = registry.keeper(&used.name).unwrap();
                let own = kind_command(&used, None);
                let own = |verb: &str| own.find_subcommand(verb).is_some();
                let asked = before.words.get(1).filter(|verb| !own(verb));
                let all = keeper.zip(asked).and_then(|(keeper, _)| {
                    let args = dotted(line[1..].to_vec());
                    let (verb, args) = of_all(&before, &keeper, &args)?;
                    Some((keeper, verb, args))
                });
                let (used, verb, line) = match all {
                    Some((keeper, verb, args)) => {
                        let line = std::iter::once("dvctl".to_owned()).chain(args);
                        (keeper, Some(verb), line.collect())
                    }
                    None => (used, before.words.get(1).cloned(), dotted(line)),
                };
                let command = root(Some(&registry), Some(kind_command(&used, verb.as_deref())));
                if let Err(e) = command.try_get_matches_from(line) {
                    wrong += &format!("{example}: {e}\n");
                }
            }
        }
        assert_eq!(wrong, "");
    }
}
