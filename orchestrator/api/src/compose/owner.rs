//! Who owns the files of a volume that begins as a folder of the package.
//!
//! Docker gives an empty volume the owners that the image has in that place, so a named volume needs nothing. A folder
//! of the package is copied in before the container starts, by a device that is root; the app's user must be able to
//! write there.

use std::collections::BTreeMap;

/// The owner that an app's user needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Owner {
    /// These numbers.
    Numbers {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Names that only the image's `/etc/passwd` and `/etc/group` explain.
    Named {
        /// A name, or a number.
        user: String,
        /// A name, or a number; none means the user's own.
        group: Option<String>,
    },
    /// Whoever the image says; root if it says nothing.
    #[default]
    Image,
}

/// Pairs of variables by which images that begin as root are told which user to become.
const BY_VARIABLES: [(&str, &str); 4] =
    [("PUID", "PGID"), ("USER_UID", "USER_GID"), ("UID", "GID"), ("USERMAP_UID", "USERMAP_GID")];

impl Owner {
    /// From a service's `user` and `environment`.
    pub fn of(user: Option<&str>, environment: &BTreeMap<String, String>) -> Self {
        if let Some(user) = user.filter(|user| !user.is_empty() && !is_root(user)) {
            return Self::of_user(user);
        }
        let number = |name: &str| environment.get(name).and_then(|text| number(text));
        for (user, group) in BY_VARIABLES {
            if let Some(uid) = number(user) {
                return Self::Numbers { uid, gid: number(group).unwrap_or(uid) };
            }
        }
        match user.filter(|user| !user.is_empty()) {
            Some(user) => Self::of_user(user),
            None => Self::Image,
        }
    }

    /// From `user`, `user:group`, in names or numbers, as compose and images write it.
    pub fn of_user(user: &str) -> Self {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (user, None),
        };
        match (number(user), group.map(number)) {
            (Some(uid), Some(Some(gid))) => Self::Numbers { uid, gid },
            // A number without a group: Docker takes root's group unless the image knows the user.
            (Some(uid), None) => Self::Numbers { uid, gid: 0 },
            _ => Self::Named { user: user.to_owned(), group: group.map(str::to_owned) },
        }
    }
}

fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), Some("0" | "root"))
}

/// A number as the kernel takes it; −1 is nobody's.
fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten().filter(|number| *number < u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_what_the_service_says() {
        let linuxserver = [("PUID", "1000"), ("PGID", "100")];
        let gitea = [("USER_UID", "1001"), ("USER_GID", "1002")];
        let named = |user: &str, group: Option<&str>| Owner::Named {
            user: user.into(),
            group: group.map(Into::into),
        };
        let numbers = |uid, gid| Owner::Numbers { uid, gid };
        type Variables<'a> = &'a [(&'a str, &'a str)];
        let table: &[(Option<&str>, Variables<'_>, Owner)] = &[
            (None, &[], Owner::Image),
            (Some(""), &[], Owner::Image),
            (Some("1000:1001"), &[], numbers(1000, 1001)),
            (Some("1000"), &[], numbers(1000, 0)),
            (Some("0:0"), &[], numbers(0, 0)),
            (Some("postgres"), &[], named("postgres", None)),
            (Some("www-data:33"), &[], named("www-data", Some("33"))),
            (Some("1000:users"), &[], named("1000", Some("users"))),
            (None, &linuxserver, numbers(1000, 100)),
            (Some("root"), &linuxserver, numbers(1000, 100)),
            (Some("5:6"), &linuxserver, numbers(5, 6)),
            (None, &gitea, numbers(1001, 1002)),
            (None, &[("PUID", "7")], numbers(7, 7)),
            (None, &[("PUID", "-1")], Owner::Image),
            (None, &[("PUID", "4294967295")], Owner::Image),
            (Some("+5"), &[], named("+5", None)),
        ];
        for (user, environment, expected) in table {
            let environment = environment.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(Owner::of(*user, &environment), *expected, "{user:?} {environment:?}");
        }
    }
}
