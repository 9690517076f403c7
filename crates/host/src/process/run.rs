//! One program run: what to start, under which limits, and how its output is taken.

use super::error::{Exit, ProcessError};
use nix::libc;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// How much of standard error is kept: the end of it, where programs say why they failed.
const SAID: usize = 8 * 1024;
/// How much standard output is taken unless told otherwise.
const OUTPUT: usize = 16 * 1024 * 1024;
/// How long a pipe may stay open after the program ended, held by something it left behind.
const LINGER: Duration = Duration::from_secs(2);

/// Limits the kernel enforces on a program. `None` leaves what we have ourselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Seconds of processor time, over all its threads; then it is killed.
    pub cpu_seconds: Option<u64>,
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Bytes of the largest file it may write.
    pub file_size: Option<u64>,
    /// Number of open descriptors.
    pub open_files: Option<u64>,
}

/// What a program that succeeded left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code: 0, or one of those given to [`Run::accept`].
    pub code: i32,
    /// All of its standard output. Empty after [`Run::lines`], which has handed it out.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text; bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The kept end of standard error as text.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

#[derive(Clone, Debug)]
enum Network {
    Ours,
    None,
    Namespace(PathBuf),
}

/// A program to run. It starts with an empty environment apart from `PATH` and `LC_ALL=C.UTF-8`, no standard input, our
/// user, our network namespace and no time limit.
///
/// ```no_run
/// # async fn f() -> Result<(), host::process::ProcessError> {
/// use host::process::Run;
/// use std::time::Duration;
/// let out = Run::new("nft")
///     .args(["-j", "list", "ruleset"])
///     .netns("dv-lab")
///     .timeout(Duration::from_secs(10))
///     .output()
///     .await?;
/// # let _ = out; Ok(()) }
/// ```
pub struct Run {
    pub(super) program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    user: Option<(u32, u32)>,
    groups: Vec<u32>,
    limits: Limits,
    timeout: Option<Duration>,
    network: Network,
    private_mounts: bool,
    accept: Vec<i32>,
    max_output: usize,
    fds: Vec<OwnedFd>,
    secrets: Vec<OwnedFd>,
    cgroup: Option<PathBuf>,
    nice: Option<i32>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("user", &self.user)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl Run {
    /// A run of `program`: a path, or a name looked up in the system's standard directories.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            stdin: None,
            user: None,
            groups: Vec::new(),
            limits: Limits::default(),
            timeout: None,
            network: Network::Ours,
            private_mounts: false,
            accept: vec![0],
            max_output: OUTPUT,
            fds: Vec::new(),
            secrets: Vec::new(),
            cgroup: None,
            nice: None,
        }
    }

    /// Adds one argument. Every user of the machine can read it: never a secret.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments. Every user of the machine can read them: never a secret.
    #[must_use]
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts it in this directory (default: `/`).
    #[must_use]
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Gives it these bytes as standard input. The place for a secret.
    #[must_use]
    pub fn stdin_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Hands it a secret as an unnamed file in memory, and returns the path by which the program can open it.
    ///
    /// # Errors
    /// When the kernel gives no memory file.
    pub fn secret(mut self, bytes: &[u8]) -> io::Result<(Self, String)> {
        let memory =
            nix::sys::memfd::memfd_create(c"secret", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        let mut file = File::from(memory);
        file.write_all(bytes)?;
        io::Seek::rewind(&mut file)?;
        let fd = OwnedFd::from(file);
        let path = format!("/dev/fd/{}", fd.as_raw_fd());
        self.secrets.push(fd);
        Ok((self, path))
    }

    /// Leaves `fd` open in the program, under the number it has with us; the number is returned so that an argument can name it.
    ///
    /// The number is kept, not chosen, because a chosen one could be in use between fork and exec.
    pub fn fd(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.fds.push(fd);
        number
    }

    /// Runs it as this numeric user and group, with no other groups and without any way to gain privileges again.
    #[must_use]
    pub fn uid_gid(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Supplementary groups; only used together with [`Run::uid_gid`].
    #[must_use]
    pub fn groups(mut self, groups: impl Into<Vec<u32>>) -> Self {
        self.groups = groups.into();
        self
    }

    /// Limits the kernel enforces.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Kills it, and everything it started, after this time. Has no effect on [`Run::spawn_detached`].
    #[must_use]
    pub fn timeout(mut self, after: Duration) -> Self {
        self.timeout = Some(after);
        self
    }

    /// Runs it in this network namespace: a name under `/run/netns`, or a path.
    #[must_use]
    pub fn netns(mut self, namespace: impl AsRef<Path>) -> Self {
        // Joining an absolute path replaces the base, so both forms come out right.
        self.network = Network::Namespace(Path::new("/run/netns").join(namespace));
        self
    }

    /// Like [`Run::netns`], or our own namespace for `None`.
    #[must_use]
    pub fn maybe_netns(self, namespace: Option<impl AsRef<Path>>) -> Self {
        match namespace {
            Some(namespace) => self.netns(namespace),
            None => self,
        }
    }

    /// Runs it in a new, empty network namespace: no network at all.
    #[must_use]
    pub fn no_network(mut self) -> Self {
        self.network = Network::None;
        self
    }

    /// Runs it in its own mount namespace: what it mounts is not seen outside; later mounts of the host are seen by it.
    #[must_use]
    pub fn private_mounts(mut self) -> Self {
        self.private_mounts = true;
        self
    }

    /// Puts it into this cgroup directory before it starts.
    #[must_use]
    pub fn cgroup(mut self, dir: impl AsRef<Path>) -> Self {
        self.cgroup = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets its scheduling priority, -20 (first) to 19 (last).
    #[must_use]
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = Some(nice);
        self
    }

    /// Exit codes that are no failure; the default is only 0.
    #[must_use]
    pub fn accept(mut self, codes: impl Into<Vec<i32>>) -> Self {
        self.accept = codes.into();
        self
    }

    /// The most standard output that is taken, in bytes (default 16 MiB). More is an error, never a silent cut.
    #[must_use]
    pub fn max_output(mut self, bytes: usize) -> Self {
        self.max_output = bytes;
        self
    }

    /// The program's name for messages.
    pub(super) fn name(&self) -> String {
        let path = Path::new(&self.program);
        let name = path.file_name().unwrap_or(&self.program);
        name.to_string_lossy().into_owned()
    }

    /// Runs it to its end and takes its output.
    ///
    /// Dropping the future kills the program and everything in its process group.
    ///
    /// # Errors
    /// See [`ProcessError`]; an exit code that is not accepted is one.
    pub async fn output(self) -> Result<Output, ProcessError> {
        let limit = self.max_output;
        let mut kept = Vec::new();
        let mut output = self
            .drive(|chunk| {
                kept.extend_from_slice(chunk);
                kept.len() <= limit
            })
            .await?;
        output.stdout = kept;
        Ok(output)
    }

    /// Runs it to its end and hands every line of its standard output to `each`, as it comes.
    ///
    /// A carriage return ends a line too, for programs that draw their progress over and over. Lines are cut at 64 KiB.
    ///
    /// # Errors
    /// As [`Run::output`].
    pub async fn lines(self, mut each: impl FnMut(&str) + Send) -> Result<Output, ProcessError> {
        const LINE: usize = 64 * 1024;
        let mut line: Vec<u8> = Vec::new();
        let mut flush = |line: &mut Vec<u8>| {
            if !line.is_empty() {
                each(&String::from_utf8_lossy(line));
                line.clear();
            }
        };
        let output = self
            .drive(|chunk| {
                for &byte in chunk {
                    match byte {
                        b'\n' | b'\r' => flush(&mut line),
                        _ if line.len() < LINE => line.push(byte),
                        _ => {}
                    }
                }
                true
            })
            .await?;
        flush(&mut line);
        Ok(output)
    }

    async fn drive(
        mut self,
        mut take: impl FnMut(&[u8]) -> bool + Send,
    ) -> Result<Output, ProcessError> {
        let program = self.name();
        let pipe = |doing: &'static str| {
            let program = program.clone();
            move |source| ProcessError::Pipe {
                program,
                doing,
                source,
            }
        };
        let stdin = self.stdin.take();
        let mut command = self.command(false)?;
        command
            .stdin(if stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = self.start(&mut command)?;
        let group = Group(child.id());
        let (input, mut out, mut err) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());

        let feed = async {
            if let (Some(mut input), Some(bytes)) = (input, stdin) {
                // A program may end without reading all of it: then its exit code tells, not a broken pipe.
                if let Err(error) = input.write_all(&bytes).await
                    && error.kind() != io::ErrorKind::BrokenPipe
                {
                    return Err(error);
                }
            }
            Ok(())
        };
        let mut said = Vec::new();
        let mut overflow = false;
        let ended = {
            let read_out = async {
                let mut chunk = vec![0; 64 * 1024];
                while let Some(n) = read(&mut out, &mut chunk).await? {
                    if !take(&chunk[..n]) {
                        overflow = true;
                        return Err(io::ErrorKind::FileTooLarge.into());
                    }
                }
                io::Result::Ok(())
            };
            let read_err = async {
                let mut chunk = vec![0; 4096];
                while let Some(n) = read(&mut err, &mut chunk).await? {
                    said.extend_from_slice(&chunk[..n]);
                    if said.len() > 2 * SAID {
                        said.drain(..said.len() - SAID);
                    }
                }
                io::Result::Ok(())
            };
            let work = async {
                let mut io = std::pin::pin!(async { tokio::try_join!(feed, read_out, read_err) });
                tokio::select! {
                    done = &mut io => done.map(|_| ()),
                    status = child.wait() => {
                        status?;
                        // What it left behind may hold the pipes: read what is there, then stop listening.
                        match tokio::time::timeout(LINGER, io).await {
                            Ok(done) => done.map(|_| ()),
                            Err(_) => Ok(()),
                        }
                    }
                }
            };
            match self.timeout {
                Some(after) => tokio::time::timeout(after, work).await,
                None => Ok(work.await),
            }
        };
        let tail = |said: &[u8]| {
            String::from_utf8_lossy(&said[said.len().saturating_sub(SAID)..]).into_owned()
        };
        match ended {
            Err(_) => {
                return Err(ProcessError::Timeout {
                    program,
                    after: self.timeout.unwrap_or_default(),
                    said: tail(&said),
                });
            }
            Ok(Err(_)) if overflow => {
                return Err(ProcessError::TooMuchOutput {
                    program,
                    limit: self.max_output,
                });
            }
            Ok(Err(error)) => return Err(pipe("talking to")(error)),
            Ok(Ok(())) => {}
        }
        // Both pipes are closed; a program that closed them and sleeps on still has only its time.
        let status = match self.timeout {
            Some(after) => match tokio::time::timeout(after, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    return Err(ProcessError::Timeout {
                        program,
                        after,
                        said: tail(&said),
                    });
                }
            },
            None => child.wait().await,
        }
        .map_err(pipe("waiting for"))?;
        group.ended();
        match Exit::from(status) {
            Exit::Code(code) if self.accept.contains(&code) => {
                let from = said.len().saturating_sub(SAID);
                Ok(Output {
                    code,
                    stdout: Vec::new(),
                    stderr: said.split_off(from),
                })
            }
            exit => Err(ProcessError::Failed {
                program,
                exit,
                said: tail(&said),
            }),
        }
    }

    pub(super) fn start(&self, command: &mut Command) -> Result<Child, ProcessError> {
        command.spawn().map_err(|source| {
            let program = self.name();
            // A missing working directory says "not found" as well.
            let dir_is_there = self.cwd.as_ref().is_none_or(|dir| dir.is_dir());
            if source.kind() == io::ErrorKind::NotFound && dir_is_there {
                ProcessError::Missing { program }
            } else {
                ProcessError::Start { program, source }
            }
        })
    }

    /// The command with everything that happens between fork and exec.
    pub(super) fn command(&self, session: bool) -> Result<Command, ProcessError> {
        let prepare = |doing: &'static str| {
            let program = self.name();
            move |source| ProcessError::Pipe {
                program,
                doing,
                source,
            }
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C.UTF-8")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.cwd.as_deref().unwrap_or(Path::new("/")));
        let namespace = match &self.network {
            Network::Namespace(path) => {
                Some(File::open(path).map_err(prepare("opening the network namespace of"))?)
            }
            _ => None,
        };
        let cgroup = match &self.cgroup {
            Some(dir) => Some(
                File::options()
                    .write(true)
                    .open(dir.join("cgroup.procs"))
                    .map_err(prepare("opening the cgroup of"))?,
            ),
            None => None,
        };
        let keep: Vec<RawFd> = self
            .fds
            .iter()
            .chain(&self.secrets)
            .map(|fd| fd.as_raw_fd())
            .collect();
        let no_network = matches!(self.network, Network::None);
        let (user, groups, limits, nice) = (self.user, self.groups.clone(), self.limits, self.nice);
        let private_mounts = self.private_mounts;
        let before_exec = move || -> io::Result<()> {
            if session {
                check(unsafe { libc::setsid() })?;
            } else {
                check(unsafe { libc::setpgid(0, 0) })?;
            }
            if let Some(cgroup) = &cgroup {
                let wrote = unsafe { libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1) };
                if wrote != 1 {
                    return Err(io::Error::last_os_error());
                }
            }
            if let Some(namespace) = &namespace {
                check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?;
            }
            if no_network {
                check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            }
            if private_mounts {
                check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
                let none = std::ptr::null();
                check(unsafe {
                    libc::mount(
                        none,
                        c"/".as_ptr(),
                        none,
                        libc::MS_REC | libc::MS_SLAVE,
                        none.cast(),
                    )
                })?;
            }
            if let Some(nice) = nice {
                check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
            }
            for (resource, value) in [
                (libc::RLIMIT_CPU, limits.cpu_seconds),
                (libc::RLIMIT_AS, limits.address_space),
                (libc::RLIMIT_FSIZE, limits.file_size),
                (libc::RLIMIT_NOFILE, limits.open_files),
                (libc::RLIMIT_CORE, Some(0)),
            ] {
                if let Some(value) = value {
                    let both = libc::rlimit {
                        rlim_cur: value,
                        rlim_max: value,
                    };
                    check(unsafe { libc::setrlimit(resource, &both) })?;
                }
            }
            if let Some((uid, gid)) = user {
                check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
                check(unsafe { libc::setresgid(gid, gid, gid) })?;
                check(unsafe { libc::setresuid(uid, uid, uid) })?;
                check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
            }
            // Nothing of ours leaks into it, even a descriptor some library opened without close-on-exec.
            let closing = unsafe {
                libc::syscall(
                    libc::SYS_close_range,
                    3u32,
                    u32::MAX,
                    libc::CLOSE_RANGE_CLOEXEC,
                )
            };
            if closing != 0 {
                return Err(io::Error::last_os_error());
            }
            for &fd in &keep {
                check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
            }
            Ok(())
        };
        // SAFETY: only direct system calls on values made before the fork; nothing allocates or locks.
        unsafe { command.pre_exec(before_exec) };
        Ok(command)
    }
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

async fn read(
    from: &mut Option<impl AsyncRead + Unpin>,
    chunk: &mut [u8],
) -> io::Result<Option<usize>> {
    match from {
        Some(from) => match from.read(chunk).await? {
            0 => Ok(None),
            n => Ok(Some(n)),
        },
        None => Ok(None),
    }
}

/// Kills a process group when dropped before the leader was reaped: until then its number cannot belong to anyone else.
struct Group(Option<u32>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // An error means that it is gone, which is what we want.
            let _ = nix::sys::signal::killpg(
                nix::unistd::Pid::from_raw(leader),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}
