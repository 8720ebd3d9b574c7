//! Options for TLS, and the reloading of certificates.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use rserpool::transport::tls::TlsConfig;
use rserpool::transport::{Tls, Transport};

use crate::signals::Signals;

/// Interval at which the files are checked for changes.
const CHECK: Duration = Duration::from_secs(5);

/// Options for TLS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsOptions {
    /// Use TLS, and trust the authorities whose certificates are in this file. Files are in PEM
    /// format, and are read again when they change, or on SIGHUP
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate to present, with those between it and the authority
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate; others must not be able to read the file
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_cert"])]
    tls_key: Option<PathBuf>,
    /// Lists of certificates that the authorities revoked
    #[arg(long, value_name = "FILE", requires = "tls_ca")]
    tls_crl: Option<PathBuf>,
}

impl TlsOptions {
    /// Returns the options for the certificate `name` of an authority, which `rserpool certs` made
    /// in `folder`.
    pub(crate) fn in_folder(folder: &Path, name: &str) -> Self {
        Self {
            tls_ca: Some(folder.join("authority.pem")),
            tls_cert: Some(folder.join(format!("{name}.pem"))),
            tls_key: Some(folder.join(format!("{name}.key"))),
            tls_crl: None,
        }
    }

    /// Returns whether TLS is to be used.
    pub(crate) fn are_given(&self) -> bool {
        self.tls_ca.is_some()
    }

    /// Returns the options as arguments for a child process.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = OsString> {
        let options = [
            ("--tls-ca", &self.tls_ca),
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
            ("--tls-crl", &self.tls_crl),
        ];
        let given = options.into_iter().filter_map(|(name, file)| Some((name, file.as_ref()?)));
        given.flat_map(|(name, file)| [name.into(), file.into()])
    }

    /// Reads the files; `None` if TLS is not to be used.
    pub(crate) fn load(&self) -> anyhow::Result<Option<TlsFiles>> {
        if self.tls_ca.is_none() {
            return Ok(None);
        }
        let (config, options) = (self.config()?, self.clone());
        Ok(Some(TlsFiles { config, options, transports: Vec::new() }))
    }

    fn config(&self) -> anyhow::Result<TlsConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authorities = self.tls_ca.as_deref().context("no --tls-ca")?;
        let mut config = TlsConfig::new(provider, &read(authorities)?)
            .with_context(|| format!("--tls-ca {}", authorities.display()))?;
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            config = config.certificate_files(certificate, key).with_context(|| {
                format!("--tls-cert {} --tls-key {}", certificate.display(), key.display())
            })?;
        }
        if let Some(lists) = &self.tls_crl {
            config = config
                .revocation_lists(&read(lists)?)
                .with_context(|| format!("--tls-crl {}", lists.display()))?;
        }
        Ok(config)
    }

    /// Returns the times at which the files were changed.
    fn changed(&self) -> Vec<Option<SystemTime>> {
        let files = [&self.tls_ca, &self.tls_cert, &self.tls_key, &self.tls_crl];
        let changed = |file: &PathBuf| fs::metadata(file).and_then(|data| data.modified()).ok();
        files.into_iter().flatten().map(changed).collect()
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// TLS with the files that were read.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    config: TlsConfig,
    options: TlsOptions,
    transports: Vec<Tls>,
}

impl TlsFiles {
    /// Returns TLS over a transport.
    pub(crate) fn over(&mut self, inner: Arc<dyn Transport>) -> anyhow::Result<Arc<dyn Transport>> {
        let tls = Tls::shared(inner, &self.config)?;
        self.transports.push(tls.clone());
        Ok(Arc::new(tls))
    }

    /// Reloads the files when they change and on SIGHUP, in a task on the current runtime.
    pub(crate) fn watch(self) {
        let mut hangups = Signals::hangup();
        let mut known = self.options.changed();
        tokio::spawn(async move {
            loop {
                let hung_up = tokio::select! {
                    () = hangups.next() => true,
                    () = tokio::time::sleep(CHECK) => false,
                };
                let changed = self.options.changed();
                if hung_up || changed != known {
                    known = changed;
                    self.reload();
                }
            }
        });
    }

    fn reload(&self) {
        let reload = |config| self.transports.iter().try_for_each(|tls| tls.reload(&config));
        match self.options.config().and_then(|config| Ok(reload(config)?)) {
            Ok(()) => tracing::info!(target: "rserpool::notice", "TLS certificates reloaded"),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "cannot reload the TLS certificates; the old ones stay in use"
            ),
        }
    }
}
