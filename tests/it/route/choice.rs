//! The choice alone: what holds for any candidates, and what it makes of a simulated host.

use std::time::Duration;

use crank::capability::Affinity;
use crank::router::{Ask, Criterion, Decision, Facts, Load, Place, choose, explain};
use crank::worker::Health;
use proptest::prelude::*;
use semver::{Version, VersionReq};

#[path = "../../../benches/routing/mod.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod routing;

use routing::{Host, Policy, RAMP, TWO, calls, ramp, twenty};

static VERSIONS: [Version; 3] = [
    Version::new(1, 0, 0),
    Version::new(1, 2, 0),
    Version::new(2, 0, 0),
];

/// A candidate; few values for each field, so that many candidates are equal in some.
fn candidate() -> impl Strategy<Value = Facts<'static>> {
    let health = prop_oneof![
        4 => Just(Health::Well),
        1 => Just(Health::Trial),
        2 => Just(Health::Suspect),
        1 => Just(Health::Down),
    ];
    let affinity = prop_oneof![
        Just(Affinity::Here),
        Just(Affinity::Anywhere),
        Just(Affinity::Elsewhere)
    ];
    let time = || {
        prop::option::of(prop_oneof![Just(10), Just(50), Just(200)].prop_map(Duration::from_millis))
    };
    let budget = prop::option::of(prop_oneof![Just(-0.5), Just(0.0), Just(0.7)]);
    let cost = prop_oneof![Just(0.0), Just(1.0), Just(5.0)];
    let load = (0usize..4, 0usize..3, 1usize..4);
    (
        0usize..VERSIONS.len(),
        prop::bool::weighted(0.9),
        health,
        (time(), time()),
        budget,
        affinity,
        cost,
        load,
    )
        .prop_map(
            |(
                version,
                is_allowed,
                health,
                (predicted, promised),
                budget_left,
                affinity,
                cost,
                load,
            )| {
                let (in_flight, queued, capacity) = load;
                Facts {
                    number: 0,
                    worker_id: "worker",
                    place: Place::Local,
                    version: &VERSIONS[version],
                    runtime: Some("wasm-component"),
                    env_profile: None,
                    denied: (!is_allowed).then_some("rule"),
                    health,
                    predicted,
                    promised,
                    budget_left,
                    affinity,
                    cost,
                    load: Load {
                        in_flight,
                        queued,
                        capacity,
                    },
                }
            },
        )
}

fn candidates() -> impl Strategy<Value = Vec<Facts<'static>>> {
    prop::collection::vec(candidate(), 0..12).prop_map(|mut all| {
        for (number, facts) in all.iter_mut().enumerate() {
            facts.number = number;
        }
        all
    })
}

/// What a call may ask: any version or one of `^1`, any cost or a ceiling, any patience or a little.
type Asked = (bool, Option<f64>, Option<Duration>);

fn asked() -> impl Strategy<Value = Asked> {
    let ceiling = prop::option::of(prop_oneof![Just(0.0), Just(1.0), Just(9.0)]);
    let patience = prop::option::of(Just(Duration::from_millis(40)));
    (any::<bool>(), ceiling, patience)
}

fn ask<'a>((first, max_cost, patience): Asked, wanted: &'a VersionReq) -> Ask<'a> {
    Ask {
        version: first.then_some(wanted),
        max_cost,
        patience,
        ..Ask::default()
    }
}

/// Written down a second time, and not by means of what is tested.
fn may_serve(facts: &Facts, ask: &Ask) -> bool {
    facts.denied.is_none()
        && facts.health != Health::Down
        && ask.max_cost.is_none_or(|most| facts.cost <= most)
        && ask
            .version
            .is_none_or(|wanted| wanted.matches(facts.version))
}

fn keeps_slo(facts: &Facts, ask: &Ask) -> bool {
    let within = |limit: Option<Duration>| match (facts.predicted, limit) {
        (Some(predicted), Some(limit)) => predicted <= limit,
        _ => true,
    };
    within(facts.promised)
        && within(ask.patience)
        && facts.budget_left.is_none_or(|left| left >= 0.0)
}

fn number(facts: &[Facts], ask: &Ask, seed: u64) -> Option<usize> {
    match choose(facts, ask, seed) {
        Decision::Chosen(at) => Some(facts[at].number),
        Decision::Nobody(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn whoever_is_chosen_may_serve_and_nobody_is_only_where_nobody_may(
        facts in candidates(), asked in asked(), seed: u64
    ) {
        let wanted = VersionReq::parse("^1").unwrap();
        let ask = ask(asked, &wanted);
        match choose(&facts, &ask, seed) {
            Decision::Chosen(at) => {
                let chosen = &facts[at];
                prop_assert!(may_serve(chosen, &ask));
                // One that failed of late only where everyone did.
                let well = |other: &Facts| may_serve(other, &ask) && other.health != Health::Suspect;
                prop_assert!(chosen.health != Health::Suspect || !facts.iter().any(well));
            }
            Decision::Nobody(_) => prop_assert!(!facts.iter().any(|facts| may_serve(facts, &ask))),
        }
    }

    #[test]
    fn never_a_lower_version_and_never_a_dearer_one_where_a_cheaper_keeps_the_slo(
        facts in candidates(), asked in asked(), seed: u64
    ) {
        let wanted = VersionReq::parse("^1").unwrap();
        let ask = ask(asked, &wanted);
        if let Decision::Chosen(at) = choose(&facts, &ask, seed) {
            let chosen = &facts[at];
            let as_well = |other: &&Facts| {
                may_serve(other, &ask) && (other.health == Health::Suspect) == (chosen.health == Health::Suspect)
            };
            for other in facts.iter().filter(as_well) {
                prop_assert!(other.version <= chosen.version);
                if other.version == chosen.version && keeps_slo(other, &ask) {
                    prop_assert!(keeps_slo(chosen, &ask));
                    prop_assert!(other.affinity >= chosen.affinity);
                    prop_assert!(other.affinity > chosen.affinity || other.cost >= chosen.cost);
                }
            }
        }
    }

    #[test]
    fn the_seed_decides_and_not_the_order_in_which_candidates_come(
        (facts, shuffled) in candidates().prop_flat_map(|facts| (Just(facts.clone()), Just(facts).prop_shuffle())),
        asked in asked(), seed: u64
    ) {
        let wanted = VersionReq::parse("^1").unwrap();
        let ask = ask(asked, &wanted);
        let first = number(&facts, &ask, seed);
        prop_assert_eq!(first, number(&facts, &ask, seed));
        prop_assert_eq!(first, number(&shuffled, &ask, seed));
    }

    #[test]
    fn of_three_the_one_that_beats_the_others_is_beaten_by_none(
        facts in prop::collection::vec(candidate(), 3), asked in asked(), seed: u64
    ) {
        let wanted = VersionReq::parse("^1").unwrap();
        let ask = ask(asked, &wanted);
        let mut facts = facts;
        for (number, facts) in facts.iter_mut().enumerate() {
            facts.number = number;
        }
        let beats = |a: usize, b: usize| number(&[facts[a], facts[b]], &ask, seed) == Some(a);
        for (a, b, c) in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)] {
            if beats(a, b) && beats(b, c) {
                prop_assert!(beats(a, c));
            }
        }
    }

    #[test]
    fn an_explanation_tells_the_choice_and_where_each_other_fell(
        facts in candidates(), asked in asked(), seed: u64
    ) {
        let wanted = VersionReq::parse("^1").unwrap();
        let ask = ask(asked, &wanted);
        let decision = choose(&facts, &ask, seed);
        let told = explain("do:it", &facts, &ask, decision);
        let chosen: Vec<usize> = (0..facts.len()).filter(|at| told.candidates[*at].verdict == "chosen").collect();
        match decision {
            Decision::Chosen(at) => prop_assert_eq!(chosen, [at]),
            Decision::Nobody(criterion) => {
                prop_assert!(chosen.is_empty());
                prop_assert!(told.sentence.contains(criterion.as_str()));
            }
        }
        for one in &told.candidates {
            let fell = one.criteria.iter().filter(|held| !held.passes).count();
            prop_assert_eq!(fell, usize::from(one.verdict != "chosen"));
            prop_assert!(one.sentence.starts_with("worker is "));
        }
        let brief = told.brief(700);
        prop_assert!(brief.len() <= 700 && brief.is_ascii());
    }
}

#[test]
fn the_most_loaded_of_equals_is_never_drawn_alone_and_a_big_one_counts_by_its_size() {
    let equal = |number, in_flight, capacity| Facts {
        number,
        worker_id: "worker",
        place: Place::Local,
        version: &VERSIONS[0],
        runtime: None,
        env_profile: None,
        denied: None,
        health: Health::Well,
        predicted: None,
        promised: None,
        budget_left: None,
        affinity: Affinity::Anywhere,
        cost: 1.0,
        load: Load {
            in_flight,
            queued: 0,
            capacity,
        },
    };
    // A quarter, three quarters, a half.
    let facts = [equal(0, 4, 16), equal(1, 3, 4), equal(2, 4, 8)];
    let mut drawn = [0; 3];
    for seed in 0..3000 {
        drawn[number(&facts, &Ask::default(), seed).expect("somebody")] += 1;
    }
    // Of three pairs the first is in two and wins both, the last wins the third.
    assert!((1900..2100).contains(&drawn[0]), "{drawn:?}");
    assert_eq!(drawn[1], 0);
}

#[test]
fn nobody_is_for_what_stopped_the_one_that_came_furthest() {
    let ceiling = Ask {
        max_cost: Some(1.0),
        ..Ask::default()
    };
    let mut facts = vec![Facts {
        number: 0,
        worker_id: "worker",
        place: Place::Remote,
        version: &VERSIONS[0],
        runtime: Some("python"),
        env_profile: None,
        denied: None,
        health: Health::Down,
        predicted: None,
        promised: None,
        budget_left: None,
        affinity: Affinity::Anywhere,
        cost: 2.0,
        load: Load {
            in_flight: 0,
            queued: 0,
            capacity: 1,
        },
    }];
    assert_eq!(choose(&[], &ceiling, 0), Decision::Nobody(Criterion::Asked));
    assert_eq!(
        choose(&facts, &ceiling, 0),
        Decision::Nobody(Criterion::Health)
    );
    facts.push(Facts {
        number: 1,
        health: Health::Well,
        ..facts[0]
    });
    assert_eq!(
        choose(&facts, &ceiling, 0),
        Decision::Nobody(Criterion::Ceiling)
    );
    let other = Ask {
        runtime: Some("wasm-component"),
        ..ceiling
    };
    assert_eq!(
        choose(&facts, &other, 0),
        Decision::Nobody(Criterion::Asked)
    );
}

#[test]
fn the_explanation_flips_from_cheap_and_slow_to_dear_and_fast_as_load_rises_and_back() {
    let mut host = Host::new(&TWO);
    let (cheap, dear) = (TWO[0].name, TWO[1].name);
    // Who is chosen at the beginning, in the middle, at the end.
    let mut told: [Vec<String>; 3] = Default::default();
    for call in calls(RAMP, ramp, &[(1000, 1)]) {
        host.pass(call.at);
        let part = match call.at.as_secs_f64() / RAMP {
            early if early < 0.05 => Some(0),
            middle if (0.45..0.55).contains(&middle) => Some(1),
            late if late > 0.95 => Some(2),
            _ => None,
        };
        if let Some(part) = part {
            let facts = host.facts();
            let ask = Ask::default();
            let said = explain("do:it", &facts, &ask, choose(&facts, &ask, 0));
            if said.chosen.as_deref() == Some(dear) {
                let why = &said.candidates[0];
                assert_eq!(why.verdict, "slo", "{said:#?}");
                assert!(
                    why.sentence.contains("160 ms is its target"),
                    "{}",
                    why.sentence
                );
            }
            told[part].extend(said.chosen);
        }
        host.call(call, Policy::Ours);
    }
    let share = |part: &Vec<String>| {
        part.iter().filter(|id| *id == cheap).count() as f64 / part.len() as f64
    };
    let shares = told.each_ref().map(share);
    assert!(
        shares[0] > 0.95 && shares[2] > 0.95 && shares[1] < 0.5,
        "{shares:?}"
    );
}

#[test]
fn more_calls_are_in_time_than_by_least_load_and_they_cost_less() {
    for load in [0.2, 0.5, 0.8] {
        let [ours, other] =
            [Policy::Ours, Policy::LeastLoaded].map(|policy| twenty(policy, load, 10.0));
        assert!(
            ours.attained() >= other.attained() && ours.cost() < other.cost(),
            "at {load}: {ours:?} against {other:?}"
        );
    }
}
