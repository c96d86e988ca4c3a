//! Products of matrices.

use vesta_protos::onnx::NodeProto;

use super::{Outcome, expect_attributes, expect_inputs, float, int, joined, output, text};
use crate::embedded::onnx::extent::Extent;
use crate::embedded::onnx::facts::Dims;
use crate::embedded::onnx::graph::{Graph, input};

pub(super) const ALL: &[&str] = &["Einsum", "Gemm", "MatMul"];

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    match node.op_type.as_str() {
        "Einsum" => einsum(g, node),
        "Gemm" => gemm(g, node),
        _ => matmul(g, node),
    }
}

fn expect_equal(a: &Extent, b: &Extent) -> Outcome {
    match a.known().zip(b.known()) {
        Some((a, b)) if a != b => Err("the sizes of its matrices do not fit".to_owned()),
        _ => Ok(()),
    }
}

/// A vector is a row on the left and a column on the right, and its axis is gone from the product.
fn matmul(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &[])?;
    let (mut a, mut b) = (g.float_dims(node, 0)?, g.float_dims(node, 1)?);
    let (mut x, mut y) = (node.input[0].clone(), node.input[1].clone());
    let (is_row, is_column) = (a.len() == 1, b.len() == 1);
    if is_row {
        a.insert(0, Extent::from(1));
        x = g.reshaped(&x, a.clone())?;
    }
    if is_column {
        b.push(Extent::from(1));
        y = g.reshaped(&y, b.clone())?;
    }
    let (Some(inner), Some(columns)) = (a.pop(), b.pop()) else {
        return Err("it multiplies numbers".to_owned());
    };
    let (Some(rows), Some(other)) = (a.pop(), b.pop()) else {
        return Err("it multiplies numbers".to_owned());
    };
    expect_equal(&inner, &other)?;
    let mut left = joined(&mut g.extents, &a, &b)?;
    let mut dims = left.clone();
    dims.extend([rows.clone(), columns.clone()]);
    if !is_row && !is_column {
        return g.emit("MatMul", &[&x, &y], output(node), vec![], dims);
    }
    let whole = g.step("MatMul", &[&x, &y], &dims)?;
    left.extend((!is_row).then_some(rows));
    left.extend((!is_column).then_some(columns));
    g.reshape(&whole, output(node), left)
}

/// A product, and a sum.
fn gemm(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=3)?;
    expect_attributes(node, &["alpha", "beta", "transA", "transB"])?;
    let mut matrices = Vec::new();
    for (at, attribute) in ["transA", "transB"].into_iter().enumerate() {
        if g.float_dims(node, at)?.len() != 2 {
            return Err("it multiplies no matrices".to_owned());
        }
        let own = node.input[at].clone();
        let own = if int(node, attribute, 0) == 0 { own } else { g.transposed(&own, &[1, 0])? };
        matrices.push((g.fact_of(&own)?.dims.clone(), own));
    }
    let [(a, x), (b, y)] = &matrices[..] else { return Err("it has no matrices".to_owned()) };
    expect_equal(&a[1], &b[0])?;
    let dims = vec![a[0].clone(), b[1].clone()];
    let one = |value: f32| value.to_bits() == 1f32.to_bits();
    let (alpha, beta) = (float(node, "alpha", 1.0), float(node, "beta", 1.0));
    if alpha == 0.0 || !alpha.is_finite() || !beta.is_finite() {
        return Err("its factors are odd".to_owned());
    }
    // Times nothing, a bias is not read.
    let bias = input(node, 2).filter(|_| beta != 0.0);
    if bias.is_none() && one(alpha) {
        return g.emit("MatMul", &[x, y], output(node), vec![], dims);
    }
    let mut product = g.step("MatMul", &[x, y], &dims)?;
    if !one(alpha) {
        let alpha = g.number(alpha);
        if bias.is_none() {
            return g.emit("Mul", &[&product, &alpha], output(node), vec![], dims);
        }
        product = g.step("Mul", &[&product, &alpha], &dims)?;
    }
    let own = g.float_dims(node, 2)?;
    if joined(&mut g.extents, &dims, &own)? != dims {
        return Err("what it adds is larger than the product".to_owned());
    }
    let mut bias = node.input[2].clone();
    if !one(beta) {
        let beta = g.number(beta);
        bias = g.step("Mul", &[&bias, &beta], &own)?;
    }
    g.emit("Add", &[&product, &bias], output(node), vec![], dims)
}

/// Of two operands, whose axes have one letter each: as a product of stacks of matrices.
fn einsum(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &["equation"])?;
    let equation = String::from_utf8_lossy(text(node, "equation").unwrap_or_default()).into_owned();
    let equation: String = equation.chars().filter(|own| !own.is_whitespace()).collect();
    let odd = || format!("its equation is {equation}");
    let (inputs, result) = equation.split_once("->").ok_or_else(odd)?;
    let (a, b) = inputs.split_once(',').ok_or_else(odd)?;
    let terms = [a, b, result];
    let is_plain = |term: &&str| {
        term.bytes().all(|own| own.is_ascii_alphabetic())
            && (1..term.len()).all(|at| !term[..at].contains(&term[at..=at]))
    };
    let dims = [g.float_dims(node, 0)?, g.float_dims(node, 1)?];
    if !terms.iter().all(is_plain) || [a.len(), b.len()] != [dims[0].len(), dims[1].len()] {
        return Err(odd());
    }
    let size = |letter: char| -> Result<Extent, String> {
        let of = |at: usize, term: &str| term.find(letter).map(|own| dims[at][own].clone());
        match (of(0, a), of(1, b)) {
            (Some(one), Some(other)) => {
                let differ = one != other && (one.is(1) || other.is(1));
                expect_equal(&one, &other).ok().filter(|()| !differ).ok_or_else(odd)?;
                Ok(if one.known().is_some() { one } else { other })
            }
            (one, other) => one.or(other).ok_or_else(odd),
        }
    };
    let chosen = |from: &str, in_b: bool, in_result: bool, other: &str| -> Vec<char> {
        let fits = |own: &char| other.contains(*own) == in_b && result.contains(*own) == in_result;
        from.chars().filter(fits).collect()
    };
    let (stack, inner) = (chosen(a, true, true, b), chosen(a, true, false, b));
    let (rows, columns) = (chosen(a, false, true, b), chosen(b, false, true, a));
    // What is summed over one operand alone has no place in a product.
    let is_whole = result.len() == stack.len() + rows.len() + columns.len()
        && a.len() == stack.len() + inner.len() + rows.len()
        && b.len() == stack.len() + inner.len() + columns.len();
    if !is_whole {
        return Err(odd());
    }
    let sizes =
        |letters: &[char]| letters.iter().map(|&own| size(own)).collect::<Result<Dims, _>>();
    let part = |letters: &[char]| super::product(&sizes(letters)?);
    let mut sides = Vec::new();
    for (at, term, order) in [(0, a, [&stack, &rows, &inner]), (1, b, [&stack, &inner, &columns])] {
        let order: Vec<char> = order.into_iter().flatten().copied().collect();
        let axes: Vec<usize> = order.iter().filter_map(|&own| term.find(own)).collect();
        let turned = g.transposed(&node.input[at], &axes)?;
        let own = match at {
            0 => vec![part(&stack)?, part(&rows)?, part(&inner)?],
            _ => vec![part(&stack)?, part(&inner)?, part(&columns)?],
        };
        sides.push(g.reshaped(&turned, own)?);
    }
    let dims = vec![part(&stack)?, part(&rows)?, part(&columns)?];
    let whole = g.step("MatMul", &[&sides[0], &sides[1]], &dims)?;
    let letters: Vec<char> = [stack, rows, columns].concat();
    let whole = g.reshaped(&whole, sizes(&letters)?)?;
    let place = |own: char| letters.iter().position(|&letter| letter == own);
    let order: Option<Vec<usize>> = result.chars().map(place).collect();
    g.transpose(&whole, output(node), &order.ok_or_else(odd)?)
}
