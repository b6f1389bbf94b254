//! The files that say who is who: what becomes of a rotation that goes half wrong.

use crank::auth::Auth;
use crank::identity::SpiffeId;

use super::authority::{ADA, Asking, Authority, Client, ask, file, own, permit};
use crate::support::{config, dir, log, run};

#[test]
fn an_authority_is_out_also_while_the_hosts_own_certificate_cannot_be_read() {
    run(async {
        let old = Authority::new();
        let asking = Asking::by_certificate(&old, "").await;
        let ada = old.svid(&[ADA], |_| {});
        let mut open = Client::connect(&asking.host, &old, Some(&ada))
            .await
            .expect("it holds");
        asking.rotate("certificate", "nonsense");
        let answer = open.who("").await.expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        asking.rotate("bundle", &Authority::new().pem());
        let answer = open.who("").await.expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        let told = ask(&asking.host, &old, Some(&ada), "").await;
        assert!(told.contains("alert"), "{told}");
    });
}

#[test]
fn a_file_of_secrets_that_others_may_read_ends_the_start_and_later_changes_nothing() {
    run(async {
        let folder = dir();
        let token = crank::auth::fresh().expect("a token");
        let id = SpiffeId::parse(ADA).expect("an id");
        let line = crank::auth::line(&token, &id);
        let tokens = file(&folder, "tokens", &line);
        let ours = Authority::new();
        let tls = own(&folder, &ours, &ours.of_host(&[]));
        for (lines, name, mode) in [
            (&tokens, "tokens", 0o640),
            (&tokens, "tokens", 0o604),
            (&tls, "key", 0o644),
        ] {
            permit(&folder, name, mode);
            let refused = Auth::open(&config(&format!("[identity]\n{lines}")));
            let told = refused.expect_err("others may read it");
            assert!(told.contains(&format!("{mode:o}")), "{told}");
            assert!(told.contains("chmod 600"), "{told}");
            permit(&folder, name, 0o400);
        }
        // Certificates and bundles are no secrets.
        permit(&folder, "certificate", 0o644);
        permit(&folder, "bundle", 0o644);
        assert!(Auth::open(&config(&format!("[identity]\n{tls}"))).is_ok());

        let asking = Asking::start(folder, &tokens).await;
        permit(&asking.dir, "tokens", 0o644);
        asking.rotate("tokens", "");
        assert_eq!(asking.who(&token).await.0, 200, "what held goes on");
        let named = asking.dir.path().join("tokens").display().to_string();
        let told = log();
        let mut told = told.lines().filter(|line| line.contains(&named));
        assert!(
            told.any(|line| line.contains("chmod 600")),
            "the log says so"
        );
        permit(&asking.dir, "tokens", 0o600);
        asking.auth.look();
        assert_eq!(asking.who(&token).await.0, 401);
    });
}
