//! Ways to a server: jump hosts, and commands.

use std::fs;
use std::path::PathBuf;

use underpass::plan::{Route, SshPlan};

use crate::rig::Sshd;

fn by(route: Route, server: SshPlan) -> SshPlan {
    SshPlan { route, ..server }
}

/// `servers` are the outer one, the inner one, and the one behind both.
pub(crate) fn two_jump_hosts([outer, inner, server]: &[Sshd; 3]) -> SshPlan {
    let inner_plan = by(Route::Jump(Box::new(outer.plan())), inner.plan());
    by(Route::Jump(Box::new(inner_plan)), server.plan())
}

pub(crate) fn nc(server: &Sshd) -> SshPlan {
    let nc = format!("nc 127.0.0.1 {}", server.plan().port);
    by(Route::Command(nc), server.plan())
}

/// A command that starts slowly, has much to say, and ends when its time is over: when there is the file that is returned.
pub(crate) fn cloud_session_tool(server: &Sshd) -> (SshPlan, PathBuf) {
    let (tool, end) = (server.path("tool"), server.path("end"));
    let text = format!(
        "echo 'Starting session with SessionId: x-0123' >&2\nsleep 1\necho 'still busy' >&2\n\
         (for i in $(seq 600); do [ -e {end} ] && break; sleep 0.1; done\n\
         echo 'Session timed out' >&2; kill $$) &\nexec nc 127.0.0.1 {port}\n",
        end = end.display(),
        port = server.plan().port
    );
    fs::write(&tool, text).unwrap();
    let command = Route::Command(format!("sh {}", tool.display()));
    let plan = SshPlan {
        connections: Some(1),
        ..by(command, server.plan())
    };
    (plan, end)
}
