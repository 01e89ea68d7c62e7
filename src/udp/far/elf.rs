//! What a program file is for: of an ELF file what elf(5) says of it, and no more than its first bytes are looked at.

use super::System;

/// The machines that a program may be for: the number that elf.h has for it, the target of a static build, and what `uname -m`
/// says where it runs.
const MACHINES: [(u16, &str, &[&str]); 8] = [
    (62, "x86_64", &["x86_64", "amd64"]),
    (183, "aarch64", &["aarch64", "arm64"]),
    (
        3,
        "i686",
        &["i386", "i486", "i586", "i686", "x86_64", "amd64"],
    ),
    (40, "arm", &["arm", "armv6l", "armv7l", "armv8l", "aarch64"]),
    (243, "riscv64gc", &["riscv64"]),
    (21, "powerpc64le", &["ppc64le"]),
    (22, "s390x", &["s390x"]),
    (258, "loongarch64", &["loongarch64"]),
];
/// A program header that names a loader (PT_INTERP).
const LOADER: u64 = 3;
/// Bytes of a file that are looked at.
pub const LOOKED_AT: u64 = 4096;

/// A program file, as far as it matters who can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::udp) struct Program {
    machine: u16,
    /// It takes nothing else of whoever runs it.
    pub(in crate::udp) is_static: bool,
    /// So much of its beginning is loaded when it runs, in bytes. Symbols and debugging information come behind.
    pub(in crate::udp) loaded: u64,
}

/// Why a file is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no program for Linux (ELF)")]
pub struct NoProgram;

impl Program {
    /// Reads the first bytes of a file.
    ///
    /// # Errors
    /// [`NoProgram`].
    pub(in crate::udp) fn read(file: &[u8]) -> Result<Self, NoProgram> {
        let header = Header::read(file).ok_or(NoProgram)?;
        let segments = header.segments(file).ok_or(NoProgram)?;
        Ok(Self {
            machine: header.machine,
            is_static: segments.iter().all(|segment| segment.kind != LOADER),
            loaded: segments
                .iter()
                .map(|segment| segment.end)
                .max()
                .ok_or(NoProgram)?,
        })
    }

    /// Whether it can run on such a machine; what is not known is tried.
    pub(in crate::udp) fn runs_on(self, system: &System) -> bool {
        let known = MACHINES.iter().find(|(number, ..)| *number == self.machine);
        let is_known = MACHINES
            .iter()
            .any(|(.., names)| names.contains(&system.machine.as_str()));
        let is_listed = known.is_none_or(|(.., names)| names.contains(&system.machine.as_str()));
        is_listed || !is_known
    }

    /// The machine that it is for.
    pub(in crate::udp) fn machine(self) -> &'static str {
        let known = MACHINES.iter().find(|(number, ..)| *number == self.machine);
        known.map_or("another machine", |(_, name, _)| name)
    }
}

/// The target of a static build for a server.
pub(in crate::udp) fn target(system: &System) -> String {
    let known = MACHINES
        .iter()
        .find(|(.., names)| names.contains(&system.machine.as_str()));
    match known.map(|(_, name, _)| *name) {
        Some("arm") => "arm-unknown-linux-musleabi".to_owned(),
        Some(name) => format!("{name}-unknown-linux-musl"),
        None => "MACHINE-unknown-linux-musl".to_owned(),
    }
}

/// What the header says.
struct Header {
    is_64: bool,
    is_little: bool,
    machine: u16,
}

impl Header {
    fn read(file: &[u8]) -> Option<Self> {
        let ident = file.strip_prefix(b"\x7fELF")?;
        let (class, order) = (ident.first()?, ident.get(1)?);
        let mut header = Self {
            is_64: *class == 2,
            is_little: *order == 1,
            machine: 0,
        };
        let is_one = matches!(class, 1 | 2) && matches!(order, 1 | 2);
        // ET_EXEC, ET_DYN.
        let runs = matches!(header.number(file, 16, 2)?, 2 | 3);
        header.machine = u16::try_from(header.number(file, 18, 2)?).ok()?;
        (is_one && runs).then_some(header)
    }

    /// The number of `len` bytes, 8 at most, at `at`.
    fn number(&self, file: &[u8], at: usize, len: usize) -> Option<u64> {
        let bytes = file.get(at..at.checked_add(len)?)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.is_little {
            true => bytes.iter().rev().fold(0, add),
            false => bytes.iter().fold(0, add),
        })
    }

    /// What the program headers say; `None`: not all of them are in `file`.
    fn segments(&self, file: &[u8]) -> Option<Vec<Segment>> {
        // e_phoff, e_phentsize and e_phnum; p_offset and p_filesz in each.
        let (places, offset, size) = match self.is_64 {
            true => ([(32, 8), (54, 2), (56, 2)], (8, 8), (32, 8)),
            false => ([(28, 4), (42, 2), (44, 2)], (4, 4), (16, 4)),
        };
        let number = |(at, len)| self.number(file, at, len);
        let [from, entry, count] = places.map(number);
        let (from, entry) = (from?, entry?);
        let segment = |index: u64| {
            let at = index.checked_mul(entry)?.checked_add(from)?;
            let at = usize::try_from(at).ok()?;
            let field = |(place, len)| self.number(file, at.checked_add(place)?, len);
            Some(Segment {
                kind: field((0, 4))?,
                end: field(offset)?.checked_add(field(size)?)?,
            })
        };
        (0..count?).map(segment).collect()
    }
}

/// A program header.
struct Segment {
    kind: u64,
    /// Where it ends in the file, in bytes.
    end: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on(kernel: &str, machine: &str) -> System {
        System {
            kernel: kernel.to_owned(),
            machine: machine.to_owned(),
        }
    }

    /// A header with one program header of this kind, whose segment has 100 bytes behind 4096.
    fn file(is_64: bool, is_little: bool, machine: u16, kind: u64) -> Vec<u8> {
        let mut file = vec![0; 256];
        let class = if is_64 { 2 } else { 1 };
        let order = if is_little { 1 } else { 2 };
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
        let mut set = |at: usize, len: usize, number: u32| {
            let mut bytes = u64::from(number).to_le_bytes()[..len].to_vec();
            if !is_little {
                bytes.reverse();
            }
            file[at..at + len].copy_from_slice(&bytes);
        };
        set(16, 2, 3);
        set(18, 2, machine.into());
        let (places, header, segment) = match is_64 {
            true => ([(32, 8), (54, 2), (56, 2)], 64, [(8, 8), (32, 8)]),
            false => ([(28, 4), (42, 2), (44, 2)], 52, [(4, 4), (16, 4)]),
        };
        for ((at, len), number) in places.into_iter().zip([header, 56, 1]) {
            set(at, len, number);
        }
        set(header as usize, 4, kind as u32);
        for ((at, len), number) in segment.into_iter().zip([4096, 100]) {
            set(header as usize + at, len, number);
        }
        file
    }

    #[test]
    fn a_header_says_machine_and_loader() {
        for (is_64, is_little, machine, name) in [
            (true, true, 62, "x86_64"),
            (true, true, 183, "aarch64"),
            (false, true, 40, "arm"),
            (true, false, 22, "s390x"),
            (true, true, 9999, "another machine"),
        ] {
            for (kind, is_static) in [(LOADER, false), (1, true)] {
                let program = Program::read(&file(is_64, is_little, machine, kind)).unwrap();
                assert_eq!((program.machine(), program.is_static), (name, is_static));
                assert_eq!(program.loaded, 4196);
            }
        }
        // Ours is one.
        let own = std::fs::read("/proc/self/exe").unwrap();
        let program = Program::read(&own[..LOOKED_AT as usize]).unwrap();
        assert_eq!(program.machine(), std::env::consts::ARCH);
        assert!((1 << 20..own.len() as u64).contains(&program.loaded));
    }

    #[test]
    fn what_is_no_program() {
        let mut object = file(true, true, 62, 1);
        object[16] = 1;
        for wrong in [
            &b""[..],
            b"#!/bin/sh\n",
            b"\x7fELF",
            b"\x7fELF\x02\x01\x01",
            &object,
            &file(true, true, 62, 1)[..64 + 39],
        ] {
            assert_eq!(Program::read(wrong), Err(NoProgram));
        }
    }

    #[test]
    fn where_it_runs() {
        let of = |machine| Program::read(&file(true, true, machine, 1)).unwrap();
        assert!(of(62).runs_on(&on("Linux", "x86_64")));
        assert!(!of(62).runs_on(&on("Linux", "aarch64")));
        assert!(!of(183).runs_on(&on("Linux", "x86_64")));
        assert!(of(40).runs_on(&on("Linux", "aarch64")), "most of them do");
        assert!(of(62).runs_on(&System::default()), "it is tried");
        assert!(of(62).runs_on(&on("Linux", "e2k")), "it is tried");
        assert!(of(9999).runs_on(&on("Linux", "x86_64")), "it is tried");
        assert_eq!(target(&on("Linux", "arm64")), "aarch64-unknown-linux-musl");
        assert_eq!(target(&on("Linux", "armv7l")), "arm-unknown-linux-musleabi");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            mut file in prop::collection::vec(any::<u8>(), 0..300),
            class in 0_u8..4,
            order in 0_u8..4,
        ) {
            let _ = Program::read(&file);
            if file.len() > 20 {
                file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
                file[16..18].copy_from_slice(if order == 1 { &[3, 0] } else { &[0, 3] });
                let _ = Program::read(&file);
            }
        }
    }
}
