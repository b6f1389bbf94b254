//! How well the worker finds: nDCG@10 and recall@10 over `evaluation/`. See docs/evaluation-search.md.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::call;
use crate::words::{Purpose, terms};

const DOCUMENTS: &str = include_str!("../../evaluation/documents.txt");
const QUERIES: &str = include_str!("../../evaluation/queries.txt");
/// Results that count.
const DEPTH: usize = 10;

/// A question and who answers it, how well.
struct Judged {
    query: &'static str,
    grades: HashMap<&'static str, f64>,
}

/// Means over questions.
#[derive(Clone, Copy, Debug)]
struct Quality {
    ndcg: f64,
    recall: f64,
}

type Ranking = Vec<(String, f64)>;

fn documents() -> Vec<(&'static str, &'static str)> {
    let lines = DOCUMENTS.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(": ")).collect()
}

/// Every third question is for choosing, the others for judging.
fn queries() -> (Vec<Judged>, Vec<Judged>) {
    let lines = QUERIES.lines().filter(|line| !line.starts_with('#'));
    let judged = lines.map(|line| {
        let (query, grades) = line.split_once(" | ").unwrap();
        let grade = |grade: &'static str| {
            let (id, grade) = grade.split_once('=').unwrap();
            (id, grade.parse().unwrap())
        };
        let grades = grades.split(' ').map(grade).collect();
        Judged { query, grades }
    });
    let (mut choosing, mut judging) = (Vec::new(), Vec::new());
    for (at, judged) in judged.enumerate() {
        if at % 3 == 0 {
            choosing.push(judged)
        } else {
            judging.push(judged)
        }
    }
    (choosing, judging)
}

fn index_all(batch: usize) {
    let documents: Vec<Value> = documents()
        .iter()
        .map(|(id, text)| json!({"id": id, "text": text}))
        .collect();
    for documents in documents.chunks(batch) {
        call("index", &json!({ "documents": documents })).unwrap();
    }
}

fn rank(query: &str, mode: &str, depth: usize) -> Ranking {
    let answer = call(
        "search",
        &json!({"query": query, "mode": mode, "top_k": depth}),
    )
    .unwrap();
    let results = answer["results"].as_array().unwrap().iter();
    let hit = |hit: &Value| {
        (
            hit["id"].as_str().unwrap().to_owned(),
            hit["score"].as_f64().unwrap(),
        )
    };
    results.map(hit).collect()
}

/// Järvelin and Kekäläinen's measure with the gains 3 and 1, and the part of the judged that is there.
fn judge(judged: &Judged, ranking: &Ranking) -> Quality {
    let gain = |grade: f64| 2_f64.powf(grade) - 1.0;
    let discounted = |gains: &mut dyn Iterator<Item = f64>| {
        gains
            .take(DEPTH)
            .enumerate()
            .map(|(at, gain)| gain / (at as f64 + 2.0).log2())
            .sum::<f64>()
    };
    let grades = ranking
        .iter()
        .map(|(id, _)| judged.grades.get(id.as_str()).copied().unwrap_or(0.0));
    let mut best: Vec<f64> = judged.grades.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    let there = ranking
        .iter()
        .take(DEPTH)
        .filter(|(id, _)| judged.grades.contains_key(id.as_str()));
    Quality {
        ndcg: discounted(&mut grades.map(gain)) / discounted(&mut best.into_iter().map(gain)),
        recall: there.count() as f64 / judged.grades.len() as f64,
    }
}

fn mean<'a>(
    judged: impl IntoIterator<Item = &'a Judged>,
    rank: impl Fn(&str) -> Ranking,
) -> Quality {
    let each: Vec<Quality> = judged
        .into_iter()
        .map(|judged| judge(judged, &rank(judged.query)))
        .collect();
    let mean = |part: fn(&Quality) -> f64| each.iter().map(part).sum::<f64>() / each.len() as f64;
    Quality {
        ndcg: mean(|q| q.ndcg),
        recall: mean(|q| q.recall),
    }
}

/// Whether no document that answers has a word of the question.
fn shares_nothing(judged: &Judged, of: &dyn Fn(f64) -> bool) -> bool {
    let asked: HashSet<String> = terms(judged.query, Purpose::Query).into_iter().collect();
    documents()
        .iter()
        .filter(|(id, _)| judged.grades.get(id).is_some_and(|grade| of(*grade)))
        .all(|(_, text)| {
            terms(text, Purpose::Index)
                .iter()
                .all(|term| !asked.contains(term))
        })
}

/// Documents that answer and share no word with the question: of these, how many are among the ten.
fn wordless(judged: &[Judged], mode: &str) -> (usize, usize) {
    let texts: HashMap<&str, &str> = documents().into_iter().collect();
    let (mut there, mut all) = (0, 0);
    for judged in judged {
        let asked: HashSet<String> = terms(judged.query, Purpose::Query).into_iter().collect();
        let silent = |id: &&&str| {
            terms(texts[**id], Purpose::Index)
                .iter()
                .all(|term| !asked.contains(term))
        };
        let silent: HashSet<&str> = judged.grades.keys().filter(silent).copied().collect();
        all += silent.len();
        there += rank(judged.query, mode, DEPTH)
            .iter()
            .filter(|(id, _)| silent.contains(id.as_str()))
            .count();
    }
    (there, all)
}

#[test]
fn words_and_meaning_together_find_more_than_either() {
    index_all(10_000);
    let (choosing, judging) = queries();
    assert!(documents().len() >= 300 && judging.len() >= 40);
    let of = |judged: &[Judged], mode: &str| mean(judged, |query| rank(query, mode, DEPTH));
    for (name, judged) in [("choosing", &choosing), ("judging", &judging)] {
        println!(
            "{name}: {} questions, {} share no word with any judged document, {} with none that answers",
            judged.len(),
            judged
                .iter()
                .filter(|j| shares_nothing(j, &|_| true))
                .count(),
            judged
                .iter()
                .filter(|j| shares_nothing(j, &|grade| grade > 1.0))
                .count()
        );
        for mode in ["bm25", "vectors", "both"] {
            let quality = of(judged, mode);
            let (there, all) = wordless(judged, mode);
            println!(
                "  {mode:8} nDCG@10 {:.3}  recall@10 {:.3}  of documents without a word of the question {there} of {all}",
                quality.ndcg, quality.recall
            );
        }
    }
    let [words, meaning, both] = ["bm25", "vectors", "both"].map(|mode| of(&judging, mode));
    assert!(both.ndcg >= words.ndcg && both.ndcg >= meaning.ndcg);
    assert!(both.recall >= words.recall && both.recall >= meaning.recall);
}

/// What the way to put the two together was chosen by: only the questions for choosing are looked at.
#[test]
fn the_way_to_put_them_together_is_the_best_of_those_that_were_tried() {
    index_all(10_000);
    let (choosing, _) = queries();
    let fused = |query: &str, score: &dyn Fn(usize, f64, f64) -> f64| {
        let mut sums: HashMap<String, f64> = HashMap::new();
        for (list, mode) in ["bm25", "vectors"].iter().enumerate() {
            let ranking = rank(query, mode, 100);
            let top = ranking.first().map_or(1.0, |(_, score)| *score);
            for (at, (id, points)) in ranking.into_iter().enumerate() {
                *sums.entry(id).or_default() +=
                    score(list, at as f64, points / if list == 0 { top } else { 1.0 });
            }
        }
        let mut ranking: Ranking = sums.into_iter().collect();
        ranking.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranking
    };
    let show = |name: &str, quality: Quality| {
        println!(
            "{name:40} nDCG@10 {:.3}  recall@10 {:.3}",
            quality.ndcg, quality.recall
        )
    };
    show(
        "as it is",
        mean(&choosing, |query| rank(query, "both", DEPTH)),
    );
    for k in [10.0, 60.0] {
        let quality = mean(&choosing, |query| {
            fused(query, &|_, at, _| 1.0 / (k + at + 1.0))
        });
        show(&format!("reciprocal ranks, {k}"), quality);
    }
    for weight in [0.3, 0.5, 0.7] {
        let quality = mean(&choosing, |query| {
            fused(query, &|list, _, points| {
                [weight, 1.0 - weight][list] * points
            })
        });
        show(&format!("by the best of the words, {weight}"), quality);
    }
}
