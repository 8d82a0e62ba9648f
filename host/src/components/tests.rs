//! Where the key of compiled code lies, and what is read as a module.

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

#[test]
fn what_is_no_regular_file_is_no_module() {
    for path in ["/dev/zero", "/dev/null", "/tmp"] {
        let error = read(Path::new(path), 1 << 20).expect_err(path);
        assert!(error.is::<ModuleError>(), "{error:?}");
        assert!(error.to_string().contains(&format!("the module {path} is not a regular file")), "{error}");
    }
}
