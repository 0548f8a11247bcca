//! A recovery kit, as it is typed or printed.

use fs_crypto::{KitError, RecoveryKit};

use crate::outcome::{Outcome, judge};

pub fn run(input: &[u8]) -> Outcome {
    // What is no text is refused by whoever reads it.
    let text = std::str::from_utf8(input);
    judge(
        input,
        || text.map_err(|_| KitError::Length { letters: 0 }).and_then(RecoveryKit::from_text),
        |kit| {
            let spelling = kit.to_text();
            match RecoveryKit::from_text(&spelling) {
                Ok(again) if again.to_text() == spelling => Ok(u64::from(input == spelling.as_bytes())),
                _ => Err("a kit that does not come back".into()),
            }
        },
    )
}

/// Valid kits of the document's rules: each group's fifth letter checks it.
pub fn seeds() -> Vec<Vec<u8>> {
    let kit = "1CR5G AYMZJ RKMG3 WCTR7 FPHCV\nFV0HF 6SDR7 19EAM XWA3R JQM3R\nN36Z6 45SWG C630A\n";
    let typed = kit.to_lowercase().replace(['\n', ' '], "-");
    [kit.to_owned(), format!("# A kit\n{kit}#\n"), typed].map(String::into_bytes).into()
}
