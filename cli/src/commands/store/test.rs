//! `comb store test`.

use clap::Args;

use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::state::State;
use crate::{keys, output, progress, stores};

/// See that a store answers, is the right one, and does what replication needs of it
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The volume
    name: VolumeName,

    /// The store; not needed if there is one
    store: Option<VolumeName>,
}

/// Probes a store of a volume.
pub fn run(state: &State, args: &TestArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let store = super::choose(&volume, args.store.as_ref().map(VolumeName::as_str))?;
    let (id, key) = (store.store_id()?, keys::load(&volume)?);
    let bar = progress::waiting("probing the store");
    let found = stores::block_on(async {
        let remote = stores::remote(&stores::open_to_write(&store.url, &key).await?, volume.id);
        let begun = std::time::Instant::now();
        remote.recognise(id).await?;
        let answer = begun.elapsed();
        let attached = remote.attach(id).await?;
        let head = remote.head().await?;
        Ok((answer, attached, head))
    });
    bar.finish_and_clear();
    let (answer, attached, head) = found?;
    output::line(&format!("store \"{}\" answers in {} ms", store.name, answer.as_millis()))?;
    output::line(&match &head.newest {
        Some(slot) => format!("  newest seal  {} of epoch {}", slot.seq, slot.epoch),
        None => "  newest seal  none".into(),
    })?;
    match super::unfitness(&attached) {
        None => output::line("  makes each object once: yes"),
        Some(why) if store.arbiter => Err(Failure::new(
            Kind::Foreign,
            format!("store \"{}\" decides who may write the volume, and cannot any more: {why}", store.name),
        )
        .hint("let no second device write the volume until that is mended")),
        Some(why) => output::line(&format!("  makes each object once: no ({why}); as a copy it need not")),
    }
}
