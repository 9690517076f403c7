//! Prints what the surfaces say about themselves: the golden files of `api/`.

use clap::ValueEnum;

/// What can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// All kinds with their schemas, as JSON.
    Registry,
    /// The OpenAPI 3.1 description.
    Openapi,
    /// The GraphQL schema, in GraphQL's own language.
    Graphql,
    /// The commands of `dvctl`, as Markdown.
    Commands,
    /// The table of privileges, as Markdown.
    Privileges,
}

/// Prints it to standard output.
pub fn print(what: What) -> anyhow::Result<()> {
    let registry = crate::kinds::registry()?;
    match what {
        What::Registry => println!("{}", serde_json::to_string_pretty(&registry.to_json())?),
        What::Graphql => print!("{}", server::graphql_sdl(&registry)),
        What::Commands => print!("{}", server::commands(&registry)),
        What::Privileges => print!("{}", server::privileges(&registry)),
        What::Openapi => println!(
            "{}",
            serde_json::to_string_pretty(&server::openapi(&registry))?
        ),
    }
    Ok(())
}
