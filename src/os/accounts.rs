//! The users whom this host can list (getpwent(3)): those of passwd(5), and of directories that let themselves be listed.

use std::sync::{Mutex, PoisonError};

use nix::libc;

/// The place in the list is the whole process's.
static LIST: Mutex<()> = Mutex::new(());

/// The numbers of those whose own group has this number.
pub fn with_group(gid: u32) -> Vec<u32> {
    let _alone = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    #[expect(unsafe_code, reason = "nobody wraps getpwent(3)")]
    // SAFETY: nobody else in this process names these functions, and of us there is one at a time. An entry is read before
    // the next call, which may overwrite it.
    unsafe {
        libc::setpwent();
        let next = || {
            libc::getpwent()
                .as_ref()
                .map(|user| (user.pw_uid, user.pw_gid))
        };
        let all = std::iter::from_fn(next);
        let found = all
            .filter(|(_, own)| *own == gid)
            .map(|(uid, _)| uid)
            .collect();
        libc::endpwent();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_in_its_own_group_each_time() {
        for _ in 0..2 {
            assert!(with_group(0).contains(&0));
            assert!(with_group(4_294_967_294).is_empty());
        }
    }
}
