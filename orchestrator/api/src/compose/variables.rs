//! Variables: where a compose file asks for one, and which names are not the app's to give.

/// A variable that a text asks for and cannot do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed<'a> {
    /// Its name.
    pub name: &'a str,
}

/// Beginnings of names that steer the programs which read them: compose, Docker's client, git, the loader.
///
/// Compose puts the values of `.env` into its own environment, so one of these could make it run another program or
/// speak to another machine.
const STEERING_BEGINNINGS: &[&str] = &[
    "BASH_",
    "BUILDKIT_",
    "BUILDX_",
    "COMPOSE_",
    "DBUS_",
    "DOCKER_",
    "GIT_",
    "LD_",
    "MALLOC_",
    "OTEL_",
    "XDG_",
];
/// Whole names of the same kind.
const STEERING: &[&str] = &[
    "ALL_PROXY",
    "GCONV_PATH",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GOTRACEBACK",
    "HOME",
    "HOSTALIASES",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IFS",
    "LOCALDOMAIN",
    "LOCPATH",
    "NO_PROXY",
    "PATH",
    "PWD",
    "RES_OPTIONS",
    "SHELL",
    "SSH_ASKPASS",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TEMP",
    "TMP",
    "TMPDIR",
];
/// Those of compose that its own projects put into `.env`, and that do nothing there: the device names the files and
/// the project itself, and what a profile brings is judged like the rest.
const HARMLESS_IN_ENV: &[&str] =
    &["COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"];

/// What a device fills in; its values win over those of `.env`.
const FILLED_BEGINNINGS: &[&str] = &["COMB_", "LINK_DOMAIN_", "LINK_TOKEN_"];
const FILLED: &[&str] = &["APP_VOLUME_NAME", "LINK_VOLUME_NAME"];

/// What a device fills in for each app, whatever it is called.
pub const FILLED_ALWAYS: &[&str] = &[
    "APP_VOLUME_NAME",
    "LINK_VOLUME_NAME",
    "LINK_DOMAIN_DEFAULT",
    "LINK_TOKEN_DEFAULT",
    "COMB_APP",
    "COMB_DOMAIN",
    "COMB_URL",
];

/// Whether a variable of this name would steer the programs of the device. Upper and lower case are not told apart.
pub fn steers(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    STEERING.contains(&upper.as_str())
        || STEERING_BEGINNINGS.iter().any(|beginning| upper.starts_with(beginning))
}

/// Whether the device gives this variable its value.
pub fn is_filled(name: &str) -> bool {
    FILLED.contains(&name) || FILLED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

/// Whether people may give this variable a value.
pub fn may_be_chosen(name: &str) -> bool {
    is_name(name) && !steers(name) && !is_filled(name)
}

/// Whether `.env` may give this variable.
pub fn may_be_in_env(name: &str) -> bool {
    !steers(name) || HARMLESS_IN_ENV.contains(&name)
}

/// Defaults inside of defaults that are looked into.
const DEPTH_MAX: usize = 16;

/// Whether a text may be a variable's name.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Bytes of a name at the beginning of `text`.
fn name_bytes(text: &str) -> usize {
    match text.as_bytes().first() {
        Some(byte) if byte.is_ascii_alphabetic() || *byte == b'_' => {
            text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
        }
        _ => 0,
    }
}

/// The variables that must have a value for `text` to mean something, as compose reads it.
///
/// `$$` is a dollar. A default (`:-`, `-`) is looked into only where there is no value; `+` needs none.
pub fn needed<'a>(text: &'a str, has_value: &dyn Fn(&str) -> bool) -> Vec<&'a str> {
    let mut found = Vec::new();
    // Defaults inside defaults are put here, so depth costs no stack; and no time, since it is bounded.
    let mut open = vec![(text, 0)];
    while let Some((text, depth)) = open.pop() {
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix('{') {
                let len = name_bytes(behind);
                let (name, behind) = behind.split_at(len);
                let end = closing(behind);
                let (inner, after) = behind.split_at(end);
                rest = after.strip_prefix('}').unwrap_or(after);
                if len == 0 {
                    continue;
                }
                let inner = inner.strip_prefix(':').unwrap_or(inner);
                match inner.as_bytes().first() {
                    Some(b'-') if !has_value(name) && depth < DEPTH_MAX => {
                        open.push((&inner[1..], depth + 1))
                    }
                    Some(b'-' | b'+') => {}
                    _ if !has_value(name) => found.push(name),
                    _ => {}
                }
            } else {
                let len = name_bytes(rest);
                let (name, behind) = rest.split_at(len);
                rest = behind;
                if len > 0 && !has_value(name) {
                    found.push(name);
                }
            }
        }
    }
    found
}

/// Where the brace ends that was opened before `text`; its end if it is never closed.
fn closing(text: &str) -> usize {
    let (mut depth, mut dollar) = (0usize, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if dollar => depth += 1,
            b'}' if depth == 0 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
        dollar = byte == b'$';
    }
    text.len()
}

/// The names that a file of variables gives, each with its line, and perhaps some that it does not.
///
/// Compose goes on behind a closing quote as at the beginning of a line, so `A="x" B=y` gives two. Which quote closes
/// depends on all before it; whatever stands behind any of them is taken for a beginning too.
pub fn names_of(file: &str) -> Vec<(u32, &str)> {
    let mut names = Vec::new();
    for (number, line) in (1u32..).zip(file.lines()) {
        let behind_quotes = line.match_indices(['"', '\'']).map(|(at, _)| &line[at + 1..]);
        let found = std::iter::once(line).chain(behind_quotes).filter_map(name_at);
        names.extend(found.map(|name| (number, name)));
    }
    names
}

/// The name of a variable that is given at the beginning of `text`.
fn name_at(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(|one: char| one.is_whitespace() || one == '\u{feff}');
    let text = match text.strip_prefix("export") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => text,
    };
    let end = text.find(|one: char| !one.is_alphanumeric() && !matches!(one, '_' | '.' | '-' | '[' | ']'))?;
    let (name, behind) = text.split_at(end);
    (!name.is_empty() && behind.trim_start().starts_with(['=', ':'])).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_needed_is_what_has_no_value_and_no_default() {
        let has = |name: &str| name == "HAVE";
        let table: &[(&str, &[&str])] = &[
            ("plain", &[]),
            ("$A and ${B}", &["A", "B"]),
            ("$HAVE ${HAVE} ${HAVE:?x}", &[]),
            ("$$A $${B}", &[]),
            ("${A:-x} ${A-x} ${A:+x} ${A+x}", &[]),
            ("${A:-${B}} ${A:-${B:-c}}", &["B"]),
            ("${HAVE:-${B}}", &[]),
            ("${A:?must be given} ${C?}", &["A", "C"]),
            ("$1 ${} ${1} $ ${A", &["A"]),
            ("$A-b", &["A"]),
        ];
        for (text, expected) in table {
            assert_eq!(needed(text, &has), *expected, "{text}");
        }
    }

    #[test]
    fn names_that_steer_programs_are_not_the_apps() {
        for name in [
            "PATH",
            "path",
            "DOCKER_HOST",
            "Docker_Config",
            "LD_PRELOAD",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "HTTP_PROXY",
            "http_proxy",
            "SSH_AUTH_SOCK",
            "HOME",
            "COMPOSE_ENV_FILES",
            "GIT_SSH_COMMAND",
            "XDG_RUNTIME_DIR",
            "compose_file",
        ] {
            assert!(!may_be_chosen(name) && !may_be_in_env(name), "{name}");
        }
        for name in
            ["APP_VOLUME_NAME", "LINK_TOKEN_DEFAULT", "COMB_APP", "COMPOSE_PROJECT_NAME", "COMPOSE_FILE"]
        {
            assert!(!may_be_chosen(name) && may_be_in_env(name), "{name}");
        }
        for name in [
            "DB_PASSWORD",
            "TZ",
            "PUID",
            "UPLOAD_LOCATION",
            "USER",
            "PORT",
            "web_port",
            "APP_KEY",
            "SSH_PORT",
            "ENV",
            "LINK_X",
        ] {
            assert!(may_be_chosen(name) && may_be_in_env(name), "{name}");
        }
        assert!(!may_be_chosen("a-b") && !may_be_chosen(""));
    }

    #[test]
    fn a_file_of_variables_gives_names() {
        let file = "# note\nA=1\n export B = 2\nC: 3\n\nnonsense\nD=${A}\n#E=1\nexporter=5\n\u{feff}F=1\nexport\tG=1\n";
        let expected = [(2, "A"), (3, "B"), (4, "C"), (7, "D"), (9, "exporter"), (10, "F"), (11, "G")];
        assert_eq!(names_of(file), expected);
        // Each of these gave PATH when compose read it.
        for file in [
            "A=\"x\" PATH=/y",
            "A='x' export PATH=/y",
            "A=\"x\"PATH=/y",
            "A=\"x\ny\" PATH=/y",
            "A\nPATH=/y",
            "export\nPATH=/y",
        ] {
            assert!(names_of(file).iter().any(|(_, name)| *name == "PATH"), "{file}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_through(text in "[${}:?+\\-A-C ]{0,60}|\\PC{0,60}") {
            for name in needed(&text, &|_| false) {
                prop_assert!(is_name(name));
            }
            names_of(&text);
        }
    }
}
