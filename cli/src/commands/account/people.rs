//! `comb account people`.

use clap::{Args, Subcommand, ValueEnum};
use orchestrator_api::wire::people::{ChangePerson, OpenInvite, Person, Role};
use serde::Serialize;

use crate::failure::{Failure, Kind, Result};
use crate::hive::{Client, HiveArgs};
use crate::output::{self, Align, Table};
use crate::state::State;

/// List the people of the account and open invitations; change what they may do
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PeopleArgs {
    #[command(subcommand)]
    command: Option<PeopleCommand>,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum PeopleCommand {
    /// Change what somebody may do
    Set {
        /// Their name
        name: String,
        /// What they may do from now on
        #[arg(value_enum)]
        role: RoleArg,
        #[command(flatten)]
        hive: HiveArgs,
    },
    /// Let somebody in no more, or take an invitation back
    Remove {
        /// Their name, or the id of the invitation
        name: String,
        #[command(flatten)]
        hive: HiveArgs,
    },
}

/// What a person may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleArg {
    /// Look
    Viewer,
    /// Run, move and restore apps, update them to what an owner signed, and drain devices
    Operator,
    /// Everything
    Owner,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Viewer => Role::Viewer,
            RoleArg::Operator => Role::Operator,
            RoleArg::Owner => Role::Owner,
        }
    }
}

#[derive(Serialize)]
struct Report {
    people: Vec<Person>,
    invitations: Vec<OpenInvite>,
}

/// Lists people, or changes one.
pub fn run(state: &State, args: &PeopleArgs) -> Result<()> {
    match &args.command {
        None => list(&args.hive.client(state)?, args.json),
        Some(PeopleCommand::Set { name, role, hive }) => {
            let client = hive.client(state)?;
            let person = find(&client, name)?;
            let changed: Person =
                client.patch(&format!("/v1/people/{}", person.id), &ChangePerson { role: (*role).into() })?;
            output::note(&format!(
                "\"{}\" is {} now",
                output::escape(changed.name.as_bytes()),
                changed.role.text()
            ));
            Ok(())
        }
        Some(PeopleCommand::Remove { name, hive }) => remove(&hive.client(state)?, name),
    }
}

fn list(client: &Client, json: bool) -> Result<()> {
    let report =
        Report { people: client.list("/v1/people")?, invitations: client.list("/v1/people/invites")? };
    if json {
        return output::json(&report);
    }
    let mut table = Table::new(&[("NAME", Align::Left), ("ROLE", Align::Left)]);
    for person in report.people {
        table.row(vec![output::escape(person.name.as_bytes()), person.role.text().to_owned()]);
    }
    table.print()?;
    for invite in report.invitations {
        let into = if invite.new_account { ", into an account of their own" } else { "" };
        output::line(&format!(
            "invited as {}{into}, until {}: {}",
            invite.role.text(),
            output::time_local(invite.ends.0.saturating_mul(1_000_000)),
            invite.id
        ))?;
    }
    Ok(())
}

fn find(client: &Client, name: &str) -> Result<Person> {
    let people: Vec<Person> = client.list("/v1/people")?;
    people.into_iter().find(|person| person.name == name || person.id.to_string() == name).ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("the account has no \"{}\"", output::escape(name.as_bytes())))
            .hint("`comb account people` lists people")
    })
}

fn remove(client: &Client, name: &str) -> Result<()> {
    let invites: Vec<OpenInvite> = client.list("/v1/people/invites")?;
    if let Some(invite) = invites.iter().find(|invite| invite.id.to_string() == name) {
        client.delete(&format!("/v1/people/invites/{}", invite.id))?;
        output::note("the invitation is taken back");
        return Ok(());
    }
    let person = find(client, name)?;
    client.delete(&format!("/v1/people/{}", person.id))?;
    output::note(&format!("\"{}\" is let in no more", output::escape(person.name.as_bytes())));
    Ok(())
}
