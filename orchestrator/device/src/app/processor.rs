//! Whether an image is for a machine's processor, by the names that Docker has for them.

/// Whether a machine's processor runs what an image holds, without emulating another one.
pub fn runs(machine: &str, image: &str) -> bool {
    let (machine, image) = (plain(machine), plain(image));
    // Each of the two also runs what was made for the smaller one before it.
    machine == image || matches!((machine, image), ("amd64", "386") | ("arm64", "arm"))
}

/// Docker's name; images that other tools made have the kernel's.
fn plain(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_runs_its_own_and_the_smaller_one() {
        let table = [
            ("amd64", "amd64", true),
            ("amd64", "x86_64", true),
            ("aarch64", "arm64", true),
            ("amd64", "386", true),
            ("arm64", "arm", true),
            ("386", "amd64", false),
            ("arm", "arm64", false),
            ("amd64", "arm64", false),
            ("arm64", "amd64", false),
            ("amd64", "riscv64", false),
        ];
        for (machine, image, expected) in table {
            assert_eq!(runs(machine, image), expected, "{image} on {machine}");
        }
    }
}
