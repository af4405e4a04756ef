//! The descriptor that an event loop watches: an eventfd where there is one, else a pipe.

#![expect(unsafe_code, reason = "descriptors of the system")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A descriptor that is readable after `set`, until `clear`.
#[derive(Debug)]
pub(crate) struct WakeFd {
    read: File,
    /// None: the same.
    write: Option<File>,
}

impl WakeFd {
    /// What this system does best.
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        return Self::eventfd();
        #[cfg(not(target_os = "linux"))]
        return Self::pipe();
    }

    #[cfg(target_os = "linux")]
    fn eventfd() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        let read = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self { read, write: None })
    }

    #[cfg(any(test, not(target_os = "linux")))]
    fn pipe() -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let (read, write) = (File::from(OwnedFd::from(read)), File::from(OwnedFd::from(write)));
        for end in [&read, &write] {
            // SAFETY: no pointers; the descriptor is open.
            let flags = unsafe { libc::fcntl(end.as_raw_fd(), libc::F_GETFL) };
            // SAFETY: as above.
            let set =
                unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) };
            if flags < 0 || set < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { read, write: Some(write) })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    /// Makes it readable.
    pub(crate) fn set(&self) {
        let mut to = self.write.as_ref().unwrap_or(&self.read);
        // It fails when it is full: then it is readable, which is all that was wanted.
        let _: io::Result<usize> = to.write(&1_u64.to_ne_bytes());
    }

    /// Makes it not readable.
    pub(crate) fn clear(&self) {
        let mut from = &self.read;
        let mut scrap = [0; 64];
        while matches!(from.read(&mut scrap), Ok(n) if n == scrap.len()) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(fd: &WakeFd) -> bool {
        let mut poll = libc::pollfd { fd: fd.raw(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, ours.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn it_is_readable_from_set_to_clear() {
        for fd in [WakeFd::new(), WakeFd::pipe()] {
            let fd = fd.expect("descriptors are left");
            assert!(!readable(&fd));
            for _ in 0..10_000 {
                fd.set(); // more than a pipe holds: it must not block
            }
            assert!(readable(&fd));
            fd.clear();
            assert!(!readable(&fd));
        }
    }
}
