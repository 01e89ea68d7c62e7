//! The arguments from all their places: the command line and the files that it names, the environment, config.toml.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, getgrouplist, getgroups, setfsgid, setfsuid, setgroups};

use super::surroundings::Person;
use crate::cli::UpArgs;
use crate::plan::dns;
use crate::plan::sources::{self, ConfigFile, Filled, SourceError, Use, Variables};

/// More than this is no file of arguments, networks or profiles, in bytes.
const MOST: u64 = 1 << 20;
/// The host's own configuration.
const SYSTEM: &str = "/etc/underpass/config.toml";

/// The words of the command line with the lines of its `@FILE`s.
///
/// # Errors
/// [`SourceError`] for the first file that cannot be used.
pub fn expanded(
    words: &[std::ffi::OsString],
    person: &Person,
) -> Result<Vec<std::ffi::OsString>, SourceError> {
    sources::expand(words.iter().cloned(), &mut |path| text(path, person))
}

/// Fills up what was not typed, and puts the contents of the named files in their place. May be asked again: it reads
/// everything anew.
///
/// # Errors
/// [`SourceError`] for the first file, variable or profile that cannot be used.
pub fn gather(typed: &UpArgs, person: &Person, used: Use) -> Result<UpArgs, SourceError> {
    let mut args = typed.clone();
    let variables = variables(used)?;
    for line in &variables.unknown {
        tracing::warn!("{line}");
    }
    for filled in fill(&mut args, variables, person)? {
        if args.dry_run {
            tracing::info!("{filled}");
        } else {
            tracing::debug!("{filled}");
        }
    }
    for path in std::mem::take(&mut args.subnet_files) {
        let path = at_home(path, person);
        args.subnets
            .extend(sources::subnets(&path, &text(&path, person)?)?);
    }
    for path in std::mem::take(&mut args.exclude_files) {
        let path = at_home(path, person);
        args.excludes
            .extend(sources::excludes(&path, &text(&path, person)?)?);
    }
    Ok(args)
}

/// The pid file of `up` that is named, in whatever place. Of the files that are read, each is opened as the person: it may be
/// asked while we are root.
///
/// # Errors
/// [`SourceError`] for the first variable, profile or configuration file that cannot be used.
pub fn pid_file(typed: &UpArgs, person: &Person) -> Result<Option<PathBuf>, SourceError> {
    let mut args = typed.clone();
    fill(&mut args, variables(Use::Up)?, person)?;
    Ok(args.daemon.pidfile)
}

fn variables(used: Use) -> Result<Variables, SourceError> {
    let all = std::env::vars_os();
    let texts =
        all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let variables = Variables::parse(texts)?;
    variables.check(used)?;
    Ok(variables)
}

/// Fills up what was not typed; what was filled.
fn fill(
    args: &mut UpArgs,
    variables: Variables,
    person: &Person,
) -> Result<Vec<Filled>, SourceError> {
    dns::give_back_networks(args);
    let files = config_files(person)?;
    let mut layers = vec![variables.layer];
    layers.extend(sources::take_profile(args, variables.profile, &files)?);
    sources::fill(args, &layers)
}

/// The configuration files that exist, the person's first.
///
/// # Errors
/// [`SourceError`] for one that cannot be used.
pub fn config_files(person: &Person) -> Result<Vec<ConfigFile>, SourceError> {
    let mut files = Vec::new();
    for path in own_config(person).into_iter().chain([SYSTEM.into()]) {
        if let Some(text) = config_text(&path, person)? {
            files.push(ConfigFile::parse(&path, &text)?);
        }
    }
    Ok(files)
}

/// XDG Base Directory Specification: a relative path does not count.
fn own_config(person: &Person) -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let directory = named
        .filter(|path| path.is_absolute())
        .or_else(|| Some(person.home.as_ref()?.join(".config")))?;
    Some(directory.join("underpass/config.toml"))
}

/// Only a shell replaces `~`, and a configuration file has none.
fn at_home(path: PathBuf, person: &Person) -> PathBuf {
    match (path.strip_prefix("~"), &person.home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

/// The text of a configuration file, if it exists. It can name a command to run (`option = ["ProxyCommand=..."]`), so who
/// else may write it must not; ssh treats its own file alike (readconf.c, `read_config_file_depth`).
fn config_text(path: &Path, person: &Person) -> Result<Option<String>, SourceError> {
    let mut file = match as_person(person, path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(path, &error)),
    };
    let found = file.metadata().map_err(|error| unreadable(path, &error))?;
    let shown = path.display();
    let wrong = if found.uid() != 0 && found.uid() != person.uid {
        Some((
            "belongs to somebody else",
            format!("sudo chown {} {shown}", person.uid),
        ))
    } else if found.mode() & 0o022 != 0 {
        Some(("can be written by others", format!("chmod go-w {shown}")))
    } else {
        None
    };
    if let Some((what, remedy)) = wrong {
        let path = path.to_owned();
        return Err(SourceError::Unsafe { path, what, remedy });
    }
    content(&mut file, path).map(Some)
}

/// The text of a file that was named.
fn text(path: &Path, person: &Person) -> Result<String, SourceError> {
    let file = as_person(person, path);
    let mut file = file.map_err(|error| unreadable(path, &error))?;
    content(&mut file, path)
}

fn content(file: &mut File, path: &Path) -> Result<String, SourceError> {
    let mut text = String::new();
    let read = file.take(MOST + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 > MOST => {
            let error = std::io::Error::other("it is larger than 1 MiB");
            Err(unreadable(path, &error))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> SourceError {
    SourceError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

/// Opens what the caller of sudo may open, no more: a message shows what is in a file (setfsuid(2)). Root's own groups would count,
/// too.
fn as_person(person: &Person, path: &Path) -> io::Result<File> {
    let Some((uid, gid)) = person.behind_sudo else {
        return File::open(path);
    };
    let own = getgroups()?;
    setgroups(&groups_of(Uid::from_raw(uid), Gid::from_raw(gid)))?;
    let group = setfsgid(Gid::from_raw(gid));
    let user = setfsuid(Uid::from_raw(uid));
    let opened = File::open(path);
    setfsuid(user);
    setfsgid(group);
    setgroups(&own)?;
    opened
}

/// The groups of a user; the first one alone where no more are known.
fn groups_of(uid: Uid, gid: Gid) -> Vec<Gid> {
    let named = User::from_uid(uid).ok().flatten();
    let name = named.and_then(|user| CString::new(user.name).ok());
    let groups = name.and_then(|name| getgrouplist(&name, gid).ok());
    groups.unwrap_or_else(|| vec![gid])
}
