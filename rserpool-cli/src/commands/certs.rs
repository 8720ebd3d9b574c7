//! `rserpool certs`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use chrono::DateTime;
use clap::{Args, Subcommand, ValueEnum};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rserpool::proto::wire::escape;
use rserpool::{Grant, Pattern, PoolElementId, RegistrarId};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use crate::options;

/// File names of an authority.
const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";

const DAY: Duration = Duration::from_secs(86_400);

/// Lifetime of an authority in days.
const AUTHORITY_DAYS: u32 = 3650;

/// Time by which a certificate is valid before it is issued, for hosts whose clocks are slow.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Create certificates for TLS
///
/// `certs init` creates a private authority, `certs issue` a certificate of it for each registrar,
/// server (an element) and client (a user). A certificate names the roles of its holder, to which
/// all others hold it. Give each host its certificate, its key and `authority.pem`, for the options
/// --tls-cert, --tls-key and --tls-ca. Keep `authority.key` elsewhere: whoever has it can issue
/// certificates.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an authority: authority.pem and authority.key
    Init {
        #[command(flatten)]
        folder: Folder,
    },
    /// Issue a certificate and a key: NAME.pem and NAME.key
    Issue {
        /// Role of the program; may be repeated
        #[arg(long, value_name = "ROLE", required = true)]
        role: Vec<Role>,
        /// Pools of an element or user, as a pattern in which * stands for any characters; may be
        /// repeated [default: all]
        #[arg(long, value_name = "PATTERN")]
        pool: Vec<Pattern>,
        /// Maximum number of elements that may register with the certificate [default: no limit]
        #[arg(long, value_name = "N")]
        max_elements: Option<u32>,
        /// Identifier that the registrar has to use [default: any]
        #[arg(long, value_name = "ID", value_parser = options::identifier)]
        identifier: Option<PoolElementId>,
        /// Name of the host or program: letters, digits, dots, hyphens and underscores. The
        /// certificate has it as the URI spiffe://rserpool.internal/NAME, which is the identity of its
        /// holder [default: the role, and a random number]
        #[arg(long, value_parser = name)]
        name: Option<String>,
        /// Number of days for which the certificate is valid
        #[arg(long, value_name = "N", default_value_t = 90,
              value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        #[command(flatten)]
        folder: Folder,
    },
    /// Print the names and the validity of certificates
    Show {
        /// Files in PEM format
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Registrar,
    /// A server, which registers in pools
    Element,
    /// A client, which uses pools
    User,
}

#[derive(Debug, Args)]
struct Folder {
    /// Folder of the files
    #[arg(long = "dir", value_name = "FOLDER", default_value = ".")]
    path: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Init { folder } => {
            Authority::create(&folder.path)?;
            notify!(
                "created {AUTHORITY} and {AUTHORITY_KEY}; issue certificates with `rserpool certs issue`"
            );
        }
        Command::Issue { role, pool, max_elements, identifier, name, days, folder } => {
            let identifier = identifier.map(|identifier| RegistrarId(identifier.0));
            let grants = grants(role, pool, *max_elements, identifier)?;
            // A name of its own, since the name is the identity.
            let drawn = || format!("{}-{:08x}", grants[0].role(), rand::random::<u32>());
            let name = name.clone().unwrap_or_else(drawn);
            Authority::open(&folder.path)?.issue(&name, &grants, *days)?;
            notify!("created {name}.pem and {name}.key, valid for {days} days");
        }
        Command::Show { files } => {
            for file in files {
                show(file)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns what a certificate for these roles grants.
fn grants(
    roles: &[Role],
    pools: &[Pattern],
    max: Option<u32>,
    identifier: Option<RegistrarId>,
) -> anyhow::Result<Vec<Grant>> {
    let of_pools = [Role::Element, Role::User].iter().any(|role| roles.contains(role));
    ensure!(pools.is_empty() || of_pools, "--pool is for the roles element and user");
    ensure!(max.is_none() || roles.contains(&Role::Element), "--max-elements is for elements");
    let of_registrar = roles.contains(&Role::Registrar);
    ensure!(identifier.is_none() || of_registrar, "--identifier is for registrars");
    let pools = if pools.is_empty() { vec![Pattern::any()] } else { pools.to_vec() };
    let each = |grant: &dyn Fn(Pattern) -> Grant| pools.iter().cloned().map(grant).collect();
    let grants = roles.iter().flat_map(|role| -> Vec<Grant> {
        match role {
            Role::Registrar => vec![Grant::Registrar { identifier }],
            Role::Element => each(&|pools| Grant::Element { pools, max }),
            Role::User => each(&|pools| Grant::User { pools }),
        }
    });
    Ok(grants.collect())
}

fn name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let stem = AUTHORITY.trim_end_matches(".pem");
    if text.is_empty() || text == stem || text.starts_with(['.', '-']) || !text.bytes().all(allowed)
    {
        return Err("write letters, digits, dots, hyphens and underscores".to_owned());
    }
    Ok(text.to_owned())
}

/// A private authority, in a folder.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Creates an authority and its files.
    pub(crate) fn create(folder: &Path) -> anyhow::Result<Self> {
        // A name of its own, so that certificates of another authority are told apart by the issuer.
        let name = format!("RSerPool authority {:08x}", rand::random::<u32>());
        let mut params = params(&name, AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("cannot create a key")?;
        let text = key.serialize_pem();
        let issuer = CertifiedIssuer::self_signed(params, key).context("cannot sign")?;
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        write(&folder.join(AUTHORITY_KEY), &text, 0o600)?;
        write(&folder.join(AUTHORITY), &issuer.pem(), 0o644)?;
        Self::open(folder)
    }

    /// Reads the files of an authority.
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let read = |name| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| {
                let path = path.display();
                format!("cannot read {path}: create an authority with `rserpool certs init`")
            })
        };
        let (certificate, key) = (read(AUTHORITY)?, read(AUTHORITY_KEY)?);
        let key = KeyPair::from_pem(&key).with_context(|| format!("cannot use {AUTHORITY_KEY}"))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .with_context(|| format!("cannot use {AUTHORITY}"))?;
        Ok(Self { folder: folder.to_owned(), issuer })
    }

    /// Issues a certificate, and writes it and its key.
    pub(crate) fn issue(&self, name: &str, grants: &[Grant], days: u32) -> anyhow::Result<()> {
        let mut params = params(name, days)?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let uris = [format!("spiffe://rserpool.internal/{name}")].into_iter();
        for uri in uris.chain(grants.iter().map(Grant::to_uri)) {
            params.subject_alt_names.push(SanType::URI(uri.try_into().context("not a name")?));
        }
        let key = KeyPair::generate().context("cannot create a key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("cannot sign")?;
        write(&self.folder.join(format!("{name}.key")), &key.serialize_pem(), 0o600)?;
        write(&self.folder.join(format!("{name}.pem")), &certificate.pem(), 0o644)
    }
}

fn params(name: &str, days: u32) -> anyhow::Result<CertificateParams> {
    #[allow(clippy::disallowed_methods, reason = "certificates have dates")]
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = now.checked_add(DAY * days).context("too many days")?.into();
    params.serial_number = Some(SerialNumber::from(rand::random::<u64>() >> 1));
    Ok(params)
}

/// Writes a file that does not exist yet.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let _ = mode;
    let created = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    created.with_context(|| format!("cannot create {}", path.display()))
}

fn show(path: &Path) -> anyhow::Result<()> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut shown = 0;
    for pem in Pem::iter_from_buffer(&text) {
        let pem = pem.with_context(|| format!("{} is not in PEM format", path.display()))?;
        if pem.label != "CERTIFICATE" {
            bail!("{} holds {}, not a certificate", path.display(), escape(&pem.label));
        }
        let certificate = pem.parse_x509().context("not a certificate")?;
        let validity = certificate.validity();
        let date = |seconds| DateTime::from_timestamp(seconds, 0).map(|time| time.to_rfc3339());
        out!("{}", path.display());
        out!("  subject  {}", escape(&certificate.subject().to_string()));
        out!("  issuer   {}", escape(&certificate.issuer().to_string()));
        out!("  serial   {}", certificate.raw_serial_as_string());
        if let Some(names) = certificate.subject_alternative_name()? {
            for name in &names.value.general_names {
                match name {
                    GeneralName::URI(name) | GeneralName::DNSName(name) => {
                        out!("  name     {}", escape(name));
                    }
                    other => out!("  name     {}", escape(&other.to_string())),
                }
            }
        }
        out!("  from     {}", date(validity.not_before.timestamp()).unwrap_or_default());
        out!("  until    {}", date(validity.not_after.timestamp()).unwrap_or_default());
        if !validity.is_valid() {
            out!("  NOT VALID NOW");
        }
        shown += 1;
    }
    ensure!(shown > 0, "{} holds no certificate", path.display());
    Ok(())
}
