//! Where the key of compiled code lies.

use std::path::Path;

use super::*;

#[test]
fn the_users_folder_is_never_relative_to_where_the_host_runs() {
    let of = |state: Option<&str>, home: Option<&str>| {
        user_state_dir(|name| match name {
            "XDG_STATE_HOME" => state.map(OsString::from),
            "HOME" => home.map(OsString::from),
            _ => None,
        })
    };
    let own = Some(Path::new("/users/u/.local/state/sandbar").to_owned());
    assert_eq!(of(Some("/s"), Some("/users/u")), Some(PathBuf::from("/s/sandbar")));
    for state in [None, Some(""), Some("state"), Some("./state")] {
        assert_eq!(of(state, Some("/users/u")), own, "{state:?}");
    }
    for home in [None, Some(""), Some("."), Some("home")] {
        assert_eq!(of(None, home), None, "{home:?}");
    }
}
