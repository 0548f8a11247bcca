//! `comb app policy`.

use clap::Args;
use orchestrator_api::wire::app::ChangeApp;
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::value::{List, Within};

use super::add::PolicyArg;
use crate::failure::{Failure, Kind, Result};
use crate::hive::find;
use crate::hive::orders::OrderArgs;
use crate::state::State;

/// Say whether an app moves by itself, who stands by, and how often its data goes to the store
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// The app
    name: String,

    /// Whether it moves by itself when its device is lost
    #[arg(value_enum)]
    policy: Option<PolicyArg>,

    /// A device that has its data at hand; may be given several times. Without a name: none
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, default_missing_value = "")]
    standby: Option<Vec<String>>,

    /// Seconds between two times that its data goes to the store, from its next start on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(5..=300))]
    seal_every: Option<u64>,

    #[command(flatten)]
    order: OrderArgs,
}

/// Changes settings.
pub fn run(state: &State, args: &PolicyArgs) -> Result<()> {
    if args.policy.is_none() && args.standby.is_none() && args.seal_every.is_none() {
        return Err(Failure::new(
            Kind::Usage,
            "say what is to change: manual, auto, --standby or --seal-every",
        ));
    }
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let standby = match &args.standby {
        None => None,
        Some(names) => {
            let names = names.iter().filter(|name| !name.is_empty());
            let ids = names.map(|name| find::device(&client, name).map(|device| device.id));
            let ids = ids.collect::<Result<Vec<_>>>()?;
            Some(
                List::try_from(ids)
                    .map_err(|_| Failure::new(Kind::Usage, "more than 8 devices cannot stand by"))?,
            )
        }
    };
    let change = ChangeApp {
        policy: args.policy.map(Into::into),
        standby,
        seal_every_s: args.seal_every.map(Within),
        stores: None,
    };
    let ordered: Ordered = client.patch(&format!("/v1/apps/{}", app.id), &change)?;
    args.order.finish(&client, ordered, &format!("settings of \"{}\"", app.name)).map(drop)
}
