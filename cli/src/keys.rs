//! `ring keys`: a cluster's authority, and what it gives each member and client.
//!
//! ```text
//! DIR/cluster                     the cluster's name
//! DIR/ca.pem                      the authority's certificate
//! DIR/ca.key                      its private key: whoever has it can be anybody; members need it not
//! DIR/datagram.keys               the keys of datagrams
//! DIR/members/NAME/               all that one member needs: its --keys
//! DIR/clients/NAME/               all that one client needs: its --keys
//! ```
//!
//! Files are readable by their owner only, and none is ever overwritten; but for `datagram.keys`,
//! which a rotation replaces, whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime};

use libring::Options;
use libring::security::datagram::{self, Step};
use libring::security::{Role, Subject};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::args::{Common, Keys, KeysAdd, KeysNew, KeysVerb, Names};
use crate::out;
use crate::stop::{Code, Stop};

/// Makes or renews keys.
pub(crate) fn run(common: &Common, args: &Keys) -> Result<(), Stop> {
    match &args.verb {
        KeysVerb::New(args) => new(common, args),
        KeysVerb::Add(args) => add(common, args),
        KeysVerb::RotateDatagram { dir } => rotate(common, dir),
    }
}

fn new(common: &Common, args: &KeysNew) -> Result<(), Stop> {
    let cluster = common.cluster.clone().unwrap_or_else(|| Options::default().cluster);
    if args.names.members.is_empty() {
        return Err(usage("a cluster has members: name each with --member"));
    }
    make(&args.dir, &cluster, &args.names)?;
    let dir = args.dir.display();
    tell(
        common,
        &args.dir,
        &args.names,
        &format!(
            "keys of cluster \"{cluster}\" are in {dir}\n  \
             {dir}/ca.key makes further keys: keep it where no member runs\n  \
             bring each directory below to its machine, and say --keys THERE"
        ),
    )
}

fn add(common: &Common, args: &KeysAdd) -> Result<(), Stop> {
    if args.names.members.is_empty() && args.names.clients.is_empty() {
        return Err(usage("nobody to add: name somebody with --member or --client"));
    }
    let authority = Authority::read(&args.dir)?;
    if let Some(named) = &common.cluster
        && *named != authority.cluster
    {
        let text = format!(
            "--cluster {named}: the keys in {} are for cluster \"{}\"",
            args.dir.display(),
            authority.cluster
        );
        return Err(usage(&text));
    }
    authority.issue_all(&args.dir, &args.names)?;
    let text = format!("added to cluster \"{}\"", authority.cluster);
    tell(common, &args.dir, &args.names, &text)
}

fn rotate(common: &Common, dir: &Path) -> Result<(), Stop> {
    let path = dir.join(DATAGRAM_FILE);
    let text = read(&path)?;
    let (next, step) = datagram::rotate(&text).map_err(|e| bad(&path, &e.to_string()))?;
    let mut copies = Vec::new();
    for entry in fs::read_dir(dir.join(MEMBERS)).into_iter().flatten().flatten() {
        let copy = entry.path().join(DATAGRAM_FILE);
        if copy.exists() {
            copies.push(copy);
        }
    }
    // The own one last: a rotation that was cut short is the same step again.
    copies.push(path.clone());
    for copy in copies {
        replace(&copy, &next).map_err(|e| Stop::io(copy.display().to_string(), &e))?;
    }
    let (did, id, then) = match step {
        Step::Added { id } => (
            "added",
            id,
            "it opens and does not seal yet; bring it to all members and restart them one after \
             the other, then rotate again",
        ),
        Step::Promoted { id } => (
            "promoted",
            id,
            "it seals, the old one still opens; bring it to all members and restart them one after \
             the other, then rotate again",
        ),
        Step::Dropped { id } => (
            "dropped",
            id,
            "it opens nothing any more; bring the file to all members and restart them one after \
             the other",
        ),
    };
    if common.json {
        return out::json(&json!({ "file": path, "step": did, "id": id }));
    }
    out::line(format!("{}: key {id} {did}: {then}", path.display()))
}

/// Says what was made.
fn tell(common: &Common, dir: &Path, names: &Names, text: &str) -> Result<(), Stop> {
    let places = |role, names: &[String]| -> Vec<PathBuf> {
        names.iter().map(|name| place(dir, role, name)).collect()
    };
    let members = places(Role::Member, &names.members);
    let clients = places(Role::Client, &names.clients);
    if common.json {
        return out::json(&json!({ "dir": dir, "members": members, "clients": clients }));
    }
    let lines = members.iter().chain(&clients).map(|place| format!("\n{}", place.display()));
    out::line(format!("{text}{}", lines.collect::<String>()))
}

/// Makes the keys of a new cluster, all or none.
pub(crate) fn make(dir: &Path, cluster: &str, names: &Names) -> Result<(), Stop> {
    check_name("--cluster", cluster)?;
    names.check()?;
    let stop = |e: &io::Error| Stop::io(dir.display().to_string(), e);
    match fs::read_dir(dir).map(Iterator::count) {
        Ok(0) => {}
        Ok(_) => {
            return Err(usage(&format!(
                "{} is not empty, and keys are never overwritten: choose a new directory, or \
                 `ring keys add`",
                dir.display()
            )));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(stop(&e)),
    }
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".new-{}", process::id()));
    let aside = dir.with_file_name(name);
    let made = make_aside(&aside, cluster, names)
        .and_then(|()| fs::rename(&aside, dir).map_err(|e| stop(&e)));
    if made.is_err() {
        // What remains of it is no use to anyone, and holds keys.
        let _: io::Result<()> = fs::remove_dir_all(&aside);
    }
    made
}

fn make_aside(dir: &Path, cluster: &str, names: &Names) -> Result<(), Stop> {
    let key = KeyPair::generate().map_err(|e| failed(&e))?;
    let mut params = CertificateParams::new(Vec::new()).map_err(|e| failed(&e))?;
    let tag = params
        .key_identifier(&key)
        .iter()
        .take(4)
        .fold(String::new(), |tag, byte| tag + &format!("{byte:02x}"));
    // Authorities of two clusters never have one name: a certificate's issuer says which it is of.
    let title = format!("ring authority {tag} of {cluster}");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, title);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = span(AUTHORITY_DAYS);
    let issuer = CertifiedIssuer::self_signed(params, key).map_err(|e| failed(&e))?;
    let datagram = datagram::new_file().map_err(|e| failed(&e))?;
    make_dir(dir)?;
    write(&dir.join(CLUSTER_FILE), cluster)?;
    write(&dir.join(CA_FILE), &issuer.pem())?;
    write(&dir.join(CA_KEY_FILE), &issuer.key().serialize_pem())?;
    write(&dir.join(DATAGRAM_FILE), &datagram)?;
    Authority::read(dir)?.issue_all(dir, names)
}

/// Where somebody's keys are.
pub(crate) fn place(dir: &Path, role: Role, name: &str) -> PathBuf {
    let role = match role {
        Role::Member => MEMBERS,
        Role::Client => CLIENTS,
    };
    dir.join(role).join(name)
}

/// Who signs.
struct Authority {
    cluster: String,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    datagram: String,
}

impl Authority {
    fn read(dir: &Path) -> Result<Self, Stop> {
        let key_path = dir.join(CA_KEY_FILE);
        let key = KeyPair::from_pem(&read(&key_path)?)
            // Its error could quote what it read.
            .map_err(|_| bad(&key_path, "holds no private key in PEM"))?;
        let ca_path = dir.join(CA_FILE);
        let pem = read(&ca_path)?;
        let issuer =
            Issuer::from_ca_cert_pem(&pem, key).map_err(|e| bad(&ca_path, &e.to_string()))?;
        let cluster = read(&dir.join(CLUSTER_FILE))?;
        let datagram = read(&dir.join(DATAGRAM_FILE))?;
        Ok(Self { cluster, pem, issuer, datagram })
    }

    fn issue_all(&self, dir: &Path, names: &Names) -> Result<(), Stop> {
        names.check()?;
        let members = names.members.iter().map(|name| (Role::Member, name));
        let clients = names.clients.iter().map(|name| (Role::Client, name));
        let all: Vec<_> = members.chain(clients).collect();
        // Before anything is written.
        for (role, name) in &all {
            let place = place(dir, *role, name);
            if place.exists() {
                return Err(usage(&format!(
                    "{} exists, and keys are never overwritten: move it away to make new ones",
                    place.display()
                )));
            }
        }
        all.into_iter().try_for_each(|(role, name)| self.issue(dir, role, name, names.days))
    }

    fn issue(&self, dir: &Path, role: Role, name: &str, days: u32) -> Result<(), Stop> {
        let subject = Subject { cluster: self.cluster.clone(), role, name: name.to_owned() };
        let key = KeyPair::generate().map_err(|e| failed(&e))?;
        let mut params = CertificateParams::new(Vec::new()).map_err(|e| failed(&e))?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let uri = subject.to_uri().try_into().map_err(|e| failed(&e))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match role {
            // Members dial each other.
            Role::Member => {
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
            }
            Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        (params.not_before, params.not_after) = span(days);
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| failed(&e))?;

        let place = place(dir, role, name);
        make_dir(&place)?;
        write(&place.join(CA_FILE), &self.pem)?;
        write(&place.join("certificate.pem"), &certificate.pem())?;
        write(&place.join("key.pem"), &key.serialize_pem())?;
        match role {
            Role::Member => write(&place.join(DATAGRAM_FILE), &self.datagram),
            Role::Client => Ok(()),
        }
    }
}

impl Names {
    /// Whether each name can be one, and that of a directory.
    fn check(&self) -> Result<(), Stop> {
        for (flag, names) in [("--member", &self.members), ("--client", &self.clients)] {
            for (place, name) in names.iter().enumerate() {
                check_name(flag, name)?;
                if name.starts_with('.') || name.contains('/') {
                    let text = format!("{flag} {name:?}: a name may not begin with . or hold a /");
                    return Err(usage(&text));
                }
                if names[..place].contains(name) {
                    return Err(usage(&format!("{flag} {name:?}: twice")));
                }
            }
        }
        Ok(())
    }
}

fn check_name(flag: &str, name: &str) -> Result<(), Stop> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        let text = format!("{flag} {name:?}: a name has 1 to {NAME_BYTES_MAX} bytes of plain text");
        return Err(usage(&text));
    }
    Ok(())
}

/// From an hour ago, as clocks differ, for so many days.
fn span<T: From<SystemTime>>(days: u32) -> (T, T) {
    let now = SystemTime::now();
    let end = now + Duration::from_secs(u64::from(days) * 86_400);
    ((now - Duration::from_secs(3600)).into(), end.into())
}

fn make_dir(path: &Path) -> Result<(), Stop> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Stop::io(path.display().to_string(), &e))
}

/// A new file, for its owner only.
fn write(path: &Path, text: &str) -> Result<(), Stop> {
    create(path, text).map_err(|e| Stop::io(path.display().to_string(), &e))
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Another content, whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension(format!("new-{}", process::id()));
    let replaced = create(&aside, text).and_then(|()| fs::rename(&aside, path));
    if replaced.is_err() {
        let _: io::Result<()> = fs::remove_file(&aside);
    }
    replaced?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn read(path: &Path) -> Result<String, Stop> {
    fs::read_to_string(path).map_err(|e| {
        let way_out = "`ring keys new` makes it";
        Stop::new(Code::Io, format!("{}: {e}; {way_out}", path.display()))
    })
}

fn usage(text: &str) -> Stop {
    Stop::new(Code::Usage, text)
}

fn bad(path: &Path, problem: &str) -> Stop {
    Stop::new(Code::Io, format!("{}: {problem}", path.display()))
}

fn failed(error: &dyn std::error::Error) -> Stop {
    Stop::new(Code::Io, format!("cannot make keys: {error}"))
}

const CLUSTER_FILE: &str = "cluster";
const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";
const DATAGRAM_FILE: &str = "datagram.keys";
const MEMBERS: &str = "members";
const CLIENTS: &str = "clients";
const NAME_BYTES_MAX: usize = 255;
/// How long an authority lasts.
const AUTHORITY_DAYS: u32 = 3650;
