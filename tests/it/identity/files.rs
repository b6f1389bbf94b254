//! The files that say who is who: what becomes of a rotation that goes half wrong.

use super::authority::{ADA, Asking, Authority, Client, ask};
use crate::support::run;

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
