//! What a web server needs to show a certificate, as text to paste. It names files and holds no secret.

use super::Certificate;
use super::types::{CertificateSpec, Issuer};
use crate::ca::der_of;
use futures::future::BoxFuture;
use model::{Error, Result};
use runtime::{Cx, StreamIo, StreamRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;

/// Where the texts have the files.
const FOLDER: &str = "/etc/ssl/debvisor";
/// What is spoken with TLS 1.2; those of TLS 1.3 are all good.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// Which web server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Server {
    /// nginx.
    Nginx,
    /// Apache with mod_ssl.
    Apache,
}

/// For whom the text is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// The web server.
    #[serde(rename = "for")]
    pub server: Server,
}

/// The stream `snippet`.
pub(super) fn stream(
    cx: Cx,
    request: StreamRequest,
    io: StreamIo,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let name = &request.target.name;
        let certificate = cx
            .get::<Certificate>(None, name)
            .ok_or_else(|| Error::not_found(format!("there is no {}", request.target)))?;
        let params: Params = serde_json::from_value(request.params)
            .map_err(|_| Error::field("for", "must be `nginx` or `apache`"))?;
        let status = certificate.status.as_ref();
        let names = status.map(|s| s.names.clone()).unwrap_or_default();
        io.data(text(name, &certificate.spec, &names, params.server))
            .await
    })
}

/// Whether the leaf says who tells that it was revoked: only that can be stapled.
fn has_responder(chain: &str) -> bool {
    let Some(der) = der_of(chain).next() else {
        return false;
    };
    x509_parser::parse_x509_certificate(&der).is_ok_and(|(_, leaf)| {
        leaf.iter_extensions()
            .any(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityInfoAccess(all) => all.iter().any(|one| {
                    one.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP
                        && matches!(one.access_location, GeneralName::URI(_))
                }),
                _ => false,
            })
    })
}

fn text(name: &str, spec: &CertificateSpec, names: &[String], server: Server) -> String {
    let names = match names.is_empty() {
        true => &spec.names,
        false => names,
    };
    let (chain, key) = (
        format!("{FOLDER}/{name}.pem"),
        format!("{FOLDER}/{name}.key"),
    );
    let whose = match spec.issuer {
        Issuer::Imported => "the one that was imported with it",
        _ => {
            "never leaves this store: for a web server elsewhere, order one there, or import one whose key you have"
        }
    };
    let head = format!(
        "# chain: dvctl certificate show {name} -o json | jq -r .spec.chain > {chain}\n\
         # key:   {whose}; {key} is for root alone (0600)\n"
    );
    let staple = spec.chain.as_deref().is_some_and(has_responder);
    let body = match server {
        Server::Nginx => nginx(names, &chain, &key, staple),
        Server::Apache => apache(names, &chain, &key, staple),
    };
    head + &body
}

const NOTHING: &str = "# no stapling: the certificate names no OCSP responder\n";

fn nginx(names: &[String], chain: &str, key: &str, staple: bool) -> String {
    let stapling = match staple {
        true => format!(
            "    ssl_stapling on;\n    ssl_stapling_verify on;\n    ssl_trusted_certificate {chain};\n"
        ),
        false => format!("    {NOTHING}"),
    };
    format!(
        "server {{\n    listen 443 ssl http2;\n    listen [::]:443 ssl http2;\n    server_name {};\n\n\
         \x20   ssl_certificate {chain};\n    ssl_certificate_key {key};\n    ssl_protocols TLSv1.2 TLSv1.3;\n    ssl_ciphers {CIPHERS};\n    ssl_prefer_server_ciphers off;\n\
         \x20   ssl_session_timeout 1d;\n    ssl_session_cache shared:debvisor:10m;\n    ssl_session_tickets off;\n{stapling}}}\n",
        names.join(" ")
    )
}

fn apache(names: &[String], chain: &str, key: &str, staple: bool) -> String {
    let first = names.first().map(String::as_str).unwrap_or_default();
    let more = match names.get(1..).unwrap_or_default().join(" ") {
        more if more.is_empty() => String::new(),
        more => format!("    ServerAlias {more}\n"),
    };
    // The cache belongs to the whole server, not to one host.
    let (cache, stapling) = match staple {
        true => (
            "SSLStaplingCache shmcb:${APACHE_RUN_DIR}/ssl_stapling(131072)\n",
            "    SSLUseStapling on\n".to_owned(),
        ),
        false => ("", format!("    {NOTHING}")),
    };
    format!(
        "# needs: a2enmod ssl http2\n{cache}<VirtualHost *:443>\n    ServerName {first}\n{more}    Protocols h2 http/1.1\n\n\
         \x20   SSLEngine on\n    SSLCertificateFile {chain}\n    SSLCertificateKeyFile {key}\n    SSLProtocol -all +TLSv1.2 +TLSv1.3\n    SSLCipherSuite {CIPHERS}\n    SSLHonorCipherOrder off\n    SSLSessionTickets off\n{stapling}</VirtualHost>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::{House, is, real};
    use crate::certificate::{Certificate, State};
    use host::process::Run;
    use serde_json::json;
    use std::path::{Path, PathBuf};

    fn program(names: &[&str]) -> Option<PathBuf> {
        let found = names.iter().map(Path::new).find(|p| p.exists());
        if found.is_none() {
            eprintln!("SKIPPED: {names:?} is not installed");
        }
        found.map(Path::to_owned)
    }

    /// The text with the files where this test has them.
    async fn written(house: &House, server: Server, folder: &Path) -> String {
        let certificate = house.cx.get::<Certificate>(None, "web").unwrap();
        let spec = &certificate.spec;
        std::fs::write(folder.join("web.pem"), spec.chain.as_deref().unwrap()).unwrap();
        std::fs::write(folder.join("web.key"), spec.private_key.as_deref().unwrap()).unwrap();
        let text = text("web", spec, &spec.names, server);
        assert!(!text.contains("PRIVATE"), "{text}");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        text.replace(FOLDER, &folder.display().to_string())
            .replace("[::]:443", &format!("[::1]:{port}"))
            .replace("*:443", &format!("127.0.0.1:{port}"))
            .replace("listen 443", &format!("listen 127.0.0.1:{port}"))
            .replace("${APACHE_RUN_DIR}", &folder.display().to_string())
    }

    async fn house() -> House {
        let house = real().await;
        let spec = json!({ "names": ["a.example.org", "b.example.org"] });
        house.create("web", spec).await.unwrap();
        house.until("web", |c| is(c, State::Valid)).await;
        house
    }

    #[tokio::test]
    async fn nginx_takes_it() {
        let Some(nginx) = program(&["/usr/sbin/nginx"]) else {
            return;
        };
        let (house, folder) = (house().await, tempfile::tempdir().unwrap());
        let inside = written(&house, Server::Nginx, folder.path()).await;
        // Of our CA: revocation is asked for at its responder.
        assert!(
            inside.contains("ssl_stapling on") && inside.contains("TLSv1.2 TLSv1.3"),
            "{inside}"
        );
        let here = folder.path().display().to_string();
        let whole = format!(
            "pid {here}/pid;\nerror_log {here}/log;\nevents {{}}\nhttp {{\naccess_log off;\nclient_body_temp_path {here}/b;\nproxy_temp_path {here}/p;\nfastcgi_temp_path {here}/f;\nuwsgi_temp_path {here}/u;\nscgi_temp_path {here}/s;\n{inside}}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, whole).unwrap();
        let said = Run::new(&nginx)
            .arg("-t")
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file);
        let said = said
            .timeout(std::time::Duration::from_secs(30))
            .output()
            .await;
        assert!(said.is_ok(), "{said:?}\n{inside}");
    }

    #[tokio::test]
    async fn apache_takes_it() {
        let Some(apache) = program(&["/usr/sbin/apache2"]) else {
            return;
        };
        let (house, folder) = (house().await, tempfile::tempdir().unwrap());
        let inside = written(&house, Server::Apache, folder.path()).await;
        assert!(
            inside.contains("SSLUseStapling on") && inside.contains("+TLSv1.2 +TLSv1.3"),
            "{inside}"
        );
        let here = folder.path().display().to_string();
        let modules: String = [
            ("mpm_event", "mpm_event"),
            ("authz_core", "authz_core"),
            ("socache_shmcb", "socache_shmcb"),
            ("ssl", "ssl"),
            ("http2", "http2"),
        ]
        .map(|(name, file)| {
            format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{file}.so\n")
        })
        .concat();
        let whole = format!(
            "ServerRoot {here}\nServerName a.example.org\nPidFile {here}/pid\nErrorLog {here}/log\n{modules}{inside}"
        );
        let file = folder.path().join("apache.conf");
        std::fs::write(&file, whole).unwrap();
        let said = Run::new(&apache).arg("-t").arg("-f").arg(&file);
        let said = said
            .timeout(std::time::Duration::from_secs(30))
            .output()
            .await;
        assert!(said.is_ok(), "{said:?}\n{inside}");
    }

    #[test]
    fn without_a_responder_nothing_is_stapled() {
        let spec = CertificateSpec {
            names: vec!["a.example.org".into()],
            issuer: Issuer::Imported,
            ..CertificateSpec::default()
        };
        for server in [Server::Nginx, Server::Apache] {
            let text = text("web", &spec, &[], server);
            assert!(
                text.contains("no stapling") && text.contains("a.example.org"),
                "{text}"
            );
            assert!(!text.to_lowercase().contains("stapling on"), "{text}");
        }
    }
}
