//! `comb account tokens`.

use clap::{Args, Subcommand};
use orchestrator_api::wire::people::{MakeToken, NewToken, Person, Token};
use orchestrator_api::wire::value::Within;

use super::people::RoleArg;
use crate::failure::{Failure, Kind, Result};
use crate::hive::{Client, HiveArgs};
use crate::output::{self, Align, Table};
use crate::state::State;

/// List the tokens of your logins and scripts; make one, or end one
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TokensArgs {
    #[command(subcommand)]
    command: Option<TokensCommand>,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// Make a token for a script; it is printed once
    Make {
        /// What it is called in the list
        title: String,
        /// What it may do, at most what you may
        #[arg(long, value_enum, default_value_t = RoleArg::Viewer)]
        role: RoleArg,
        /// For how many days it is good
        #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=365))]
        days: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hive: HiveArgs,
    },
    /// End a token
    Remove {
        /// Its id, as the list has it
        id: String,
        #[command(flatten)]
        hive: HiveArgs,
    },
}

/// Lists tokens, makes or ends one.
pub fn run(state: &State, args: &TokensArgs) -> Result<()> {
    match &args.command {
        None => list(&args.hive.client(state)?, args.json),
        Some(TokensCommand::Make { title, role, days, json, hive }) => {
            let client = hive.client(state)?;
            let title =
                title.parse().map_err(|error| Failure::new(Kind::Usage, format!("the title {error}")))?;
            let make = MakeToken { title, role: (*role).into(), ends_in_s: Some(Within(days * 86_400)) };
            let made: NewToken = client.post_once("/v1/tokens", &make)?;
            if *json {
                return output::json(&made);
            }
            output::line(&output::escape(made.token.reveal().as_bytes()))?;
            output::note(&format!(
                "shown this once; good until {}",
                output::time_local(made.ends.0.saturating_mul(1_000_000))
            ));
            Ok(())
        }
        Some(TokensCommand::Remove { id, hive }) => {
            let client = hive.client(state)?;
            let tokens: Vec<Token> = client.list("/v1/tokens")?;
            let token = tokens.iter().find(|token| token.id.to_string() == *id).ok_or_else(|| {
                Failure::new(
                    Kind::NotFound,
                    format!("there is no token \"{}\"", output::escape(id.as_bytes())),
                )
                .hint("`comb account tokens` lists them")
            })?;
            client.delete(&format!("/v1/tokens/{}", token.id))?;
            output::note("the token is good for nothing more");
            Ok(())
        }
    }
}

fn list(client: &Client, json: bool) -> Result<()> {
    let tokens: Vec<Token> = client.list("/v1/tokens")?;
    if json {
        return output::json(&tokens);
    }
    // Only owners see people; everybody sees their own tokens.
    let people: Vec<Person> = client.list("/v1/people").unwrap_or_default();
    let mut table = Table::new(&[
        ("TITLE", Align::Left),
        ("WHOSE", Align::Left),
        ("ROLE", Align::Left),
        ("USED", Align::Left),
        ("UNTIL", Align::Left),
        ("ID", Align::Left),
    ]);
    let time = |time: orchestrator_api::text::Time| output::time_local(time.0.saturating_mul(1_000_000));
    for token in tokens {
        let whose = people.iter().find(|person| person.id == token.person);
        let this = if token.this { " (this one)" } else { "" };
        table.row(vec![
            format!("{}{this}", output::escape(token.title.as_bytes())),
            whose.map_or_else(|| "you".to_owned(), |person| output::escape(person.name.as_bytes())),
            token.role.text().to_owned(),
            token.used.map_or_else(|| "-".to_owned(), time),
            time(token.ends),
            token.id.to_string(),
        ]);
    }
    table.print()
}
