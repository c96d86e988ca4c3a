//! Whole numbers that follow from sizes: `Shape`, and what files compute from it.
//!
//! Invariant: what is followed here is computed in 64 bits, as the file means it.

use vesta_model::DType;
use vesta_protos::onnx::NodeProto;

use super::{
    Outcome, axis_of, expect_attributes, expect_inputs, extents, int, ints, layout, output, picks,
    product,
};
use crate::embedded::onnx::extent::{Extent, Extents};
use crate::embedded::onnx::facts::{
    Dims, ELEMENTS_MAX, FLOAT, Fact, WHOLE_FLOAT_MAX, dtype_of, raw,
};
use crate::embedded::onnx::graph::{Graph, Written, input};

pub(super) const ALL: &[&str] = &["Constant", "ConstantOfShape", "Mod", "Range", "Shape", "Size"];

/// Whole numbers with the sizes of their tensor.
#[derive(Clone)]
struct Block {
    dtype: DType,
    dims: Vec<usize>,
    elements: Vec<Extent>,
}

impl Block {
    fn of(fact: &Fact) -> Option<Block> {
        let dims: Option<Vec<usize>> = fact.dims.iter().map(Extent::size).collect();
        let elements = fact.elements.as_ref()?.to_vec();
        Some(Block { dtype: fact.dtype, dims: dims?, elements })
    }

    /// A block of other sizes, element by element.
    fn made(
        dtype: DType,
        dims: Vec<usize>,
        mut element: impl FnMut(&[usize]) -> Option<Extent>,
    ) -> Option<Block> {
        let count = dims.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim))?;
        if count > ELEMENTS_MAX {
            return None;
        }
        let mut elements = Vec::with_capacity(count);
        for at in 0..count {
            let mut index = vec![0; dims.len()];
            let mut rest = at;
            for axis in (0..dims.len()).rev() {
                index[axis] = rest % dims[axis];
                rest /= dims[axis];
            }
            elements.push(element(&index)?);
        }
        Some(Block { dtype, dims, elements })
    }

    /// The element at an index of something that this broadcasts to.
    fn at(&self, index: &[usize]) -> Option<&Extent> {
        let skipped = index.len().checked_sub(self.dims.len())?;
        let place = self.dims.iter().zip(&index[skipped..]);
        let place = place.fold(0, |all, (&dim, &at)| all * dim + if dim == 1 { 0 } else { at });
        self.elements.get(place)
    }

    fn known(&self) -> Option<Vec<i64>> {
        self.elements.iter().map(Extent::known).collect()
    }
}

fn follow(g: &mut Graph, node: &NodeProto, block: Block) -> Outcome {
    g.follow(output(node), block.dtype, extents(&block.dims), block.elements)
}

/// Follows a node whose inputs are followed, as far as it can be; whether it did.
pub(super) fn fold(g: &mut Graph, node: &NodeProto) -> Result<bool, String> {
    let mut blocks = Vec::new();
    for at in 0..node.input.len().min(8) {
        if input(node, at).is_some() {
            let Some(block) = Block::of(g.fact(node, at)?) else { return Ok(false) };
            blocks.push(block);
        }
    }
    if blocks.is_empty() || node.input.len() > 8 {
        return Ok(false);
    }
    match folded(g, node, blocks)? {
        Some(block) => follow(g, node, block).map(|()| true),
        None => Ok(false),
    }
}

fn folded(
    g: &mut Graph,
    node: &NodeProto,
    mut blocks: Vec<Block>,
) -> Result<Option<Block>, String> {
    let op = node.op_type.as_str();
    let alike = |block: &Block, each: fn(&Extent) -> Option<Extent>| {
        Block::made(block.dtype, block.dims.clone(), |at| each(block.at(at)?))
    };
    Ok(match op {
        "Identity" => Some(blocks.swap_remove(0)),
        "Ceil" | "Floor" | "Round" if blocks[0].dtype == DType::F32 => Some(blocks.swap_remove(0)),
        "Cast" => cast(node, blocks.swap_remove(0)),
        "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => {
            let dims = layout::sizes(g, node)?;
            let dims: Option<Vec<usize>> = dims.iter().map(Extent::size).collect();
            dims.map(|dims| Block { dims, ..blocks.swap_remove(0) })
        }
        "Transpose" => turned(node, &blocks[0])?,
        "Concat" => concat(node, &blocks)?,
        "Gather" => gather(node, &blocks)?,
        "Slice" => picks::whole_cuts(g, node)?.and_then(|cuts| cut(&blocks[0], &cuts)),
        "Expand" | "Tile" => repeated(op, &blocks),
        "Where" if blocks.len() == 3 => chosen(&blocks[0], &blocks[1], &blocks[2]),
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" => reduced(node, &blocks),
        _ if blocks.len() == 2 => binary(&mut g.extents, op, &blocks[0], &blocks[1]),
        "Not" => alike(&blocks[0], |own| Some(Extent::from(i64::from(own.is(0))))),
        "Neg" if blocks[0].dtype != DType::F32 => {
            alike(&blocks[0], |own| own.times(&Extent::from(-1)).ok())
        }
        _ => None,
    })
}

fn turned(node: &NodeProto, from: &Block) -> Result<Option<Block>, String> {
    let order = layout::order(node, from.dims.len())?;
    let dims = order.iter().map(|&axis| from.dims[axis]).collect();
    Ok(Block::made(from.dtype, dims, |index| {
        let mut own = vec![0; index.len()];
        order.iter().zip(index).for_each(|(&axis, &at)| own[axis] = at);
        from.at(&own).cloned()
    }))
}

fn cut(from: &Block, cuts: &[picks::WholeCut]) -> Option<Block> {
    let dims = cuts.iter().map(|cut| cut.2).collect();
    Block::made(from.dtype, dims, |index| {
        let own = cuts.iter().zip(index).map(|(&(start, step, _), &at)| {
            usize::try_from(start + step * at as i64).unwrap_or(usize::MAX)
        });
        from.at(&own.collect::<Vec<_>>()).cloned()
    })
}

fn chosen(which: &Block, a: &Block, b: &Block) -> Option<Block> {
    let dims = both(&both(&which.dims, &a.dims), &b.dims);
    if ![which, a, b].iter().all(|own| fits(&own.dims, &dims)) || a.dtype != b.dtype {
        return None;
    }
    Block::made(a.dtype, dims, |at| {
        let own = which.at(at)?.known()?;
        if own != 0 { a.at(at).cloned() } else { b.at(at).cloned() }
    })
}

/// What sizes broadcast to; where they do not, elements will be absent.
fn both(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let of =
        |dims: &[usize], at: usize| (at + dims.len()).checked_sub(rank).map_or(1, |at| dims[at]);
    let pair = |at: usize| (of(a, at), of(b, at));
    (0..rank).map(|at| if pair(at).0 == 1 { pair(at).1 } else { pair(at).0 }).collect()
}

fn fits(from: &[usize], to: &[usize]) -> bool {
    let skipped = to.len().checked_sub(from.len());
    skipped.is_some_and(|skipped| {
        from.iter().zip(&to[skipped..]).all(|(&own, &dim)| own == 1 || own == dim)
    })
}

fn cast(node: &NodeProto, block: Block) -> Option<Block> {
    let to = i32::try_from(int(node, "to", 0)).ok().and_then(dtype_of)?;
    let elements = match to {
        DType::Bool => {
            let truth = |own: &Extent| Some(Extent::from(i64::from(own.known()? != 0)));
            block.elements.iter().map(truth).collect::<Option<_>>()?
        }
        // A size beyond 32 bits ends the run, here or there.
        DType::I32
            if block.known().is_some_and(|all| all.iter().any(|&n| i32::try_from(n).is_err())) =>
        {
            return None;
        }
        _ => block.elements,
    };
    Some(Block { dtype: to, elements, ..block })
}

fn concat(node: &NodeProto, blocks: &[Block]) -> Result<Option<Block>, String> {
    let first = &blocks[0];
    let axis = axis_of(int(node, "axis", 0), first.dims.len())?;
    let alike = |own: &Block| {
        let mut dims = own.dims.clone();
        own.dtype == first.dtype && dims.len() == first.dims.len() && {
            dims[axis] = first.dims[axis];
            dims == first.dims
        }
    };
    if blocks.len() != node.input.len() || !blocks.iter().all(alike) {
        return Err("its inputs do not fit".to_owned());
    }
    let mut dims = first.dims.clone();
    dims[axis] = blocks.iter().map(|own| own.dims[axis]).sum();
    Ok(Block::made(first.dtype, dims, |index| {
        let mut own = index.to_vec();
        let block = blocks.iter().find(|block| {
            let is_here = own[axis] < block.dims[axis];
            if !is_here {
                own[axis] -= block.dims[axis];
            }
            is_here
        });
        block?.at(&own).cloned()
    }))
}

fn gather(node: &NodeProto, blocks: &[Block]) -> Result<Option<Block>, String> {
    let [from, which] = blocks else { return Ok(None) };
    let axis = axis_of(int(node, "axis", 0), from.dims.len())?;
    let Some(known) = which.known() else { return Ok(None) };
    let rows = known.iter().map(|&own| axis_of(own, from.dims[axis]));
    let rows = rows.collect::<Result<Vec<usize>, String>>()?;
    let dims = [&from.dims[..axis], &which.dims, &from.dims[axis + 1..]].concat();
    Ok(Block::made(from.dtype, dims, |index| {
        let (before, rest) = index.split_at(axis);
        let (own, behind) = rest.split_at(which.dims.len());
        let place = which.dims.iter().zip(own).fold(0, |all, (&dim, &at)| all * dim + at);
        from.at(&[before, &[*rows.get(place)?], behind].concat()).cloned()
    }))
}

fn repeated(op: &str, blocks: &[Block]) -> Option<Block> {
    let [from, by] = blocks else { return None };
    let by: Vec<usize> = by.elements.iter().map(Extent::size).collect::<Option<_>>()?;
    if op == "Expand" {
        let dims = both(&from.dims, &by);
        let is_right = fits(&from.dims, &dims) && fits(&by, &dims);
        return is_right.then(|| Block::made(from.dtype, dims, |at| from.at(at).cloned()))?;
    }
    let dims = from.dims.iter().zip(&by).map(|(&dim, &by)| dim.checked_mul(by));
    let dims: Option<Vec<usize>> = dims.collect();
    let dims = dims.filter(|_| by.len() == from.dims.len())?;
    Block::made(from.dtype, dims, |index| {
        let own: Vec<usize> = index.iter().zip(&from.dims).map(|(&at, &dim)| at % dim).collect();
        from.at(&own).cloned()
    })
}

/// Over all axes, of numbers that are known, or of products and sums.
fn reduced(node: &NodeProto, blocks: &[Block]) -> Option<Block> {
    let from = &blocks[0];
    let axes = match blocks.get(1) {
        Some(axes) => axes.known()?,
        None => ints(node, "axes").unwrap_or_default(),
    };
    let is_whole = axes.is_empty() || axes.len() == from.dims.len();
    if matches!(from.dtype, DType::Bool | DType::F32) || from.elements.is_empty() || !is_whole {
        return None;
    }
    if axes.is_empty() && int(node, "noop_with_empty_axes", 0) != 0 {
        return None;
    }
    let value = match node.op_type.as_str() {
        "ReduceProd" => product(&from.elements).ok()?,
        "ReduceSum" => {
            from.elements.iter().try_fold(Extent::from(0), |sum, own| sum.plus(own)).ok()?
        }
        "ReduceMax" => Extent::from(*from.known()?.iter().max()?),
        _ => Extent::from(*from.known()?.iter().min()?),
    };
    let rank = if int(node, "keepdims", 1) != 0 { from.dims.len() } else { 0 };
    Some(Block { dtype: from.dtype, dims: vec![1; rank], elements: vec![value] })
}

fn binary(extents: &mut Extents, op: &str, a: &Block, b: &Block) -> Option<Block> {
    let dims = both(&a.dims, &b.dims);
    if a.dtype != b.dtype || !fits(&a.dims, &dims) || !fits(&b.dims, &dims) {
        return None;
    }
    let is_truth = matches!(
        op,
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or"
    );
    let of_truths = matches!(op, "And" | "Or" | "Equal");
    if (a.dtype == DType::Bool && !of_truths)
        || (a.dtype != DType::Bool && matches!(op, "And" | "Or"))
    {
        return None;
    }
    let block = Block::made(if is_truth { DType::Bool } else { a.dtype }, dims, |at| {
        let (a_own, b_own) = (a.at(at)?, b.at(at)?);
        match (op, a.dtype) {
            // Of floats, what is left over counts, and a zero may be below zero.
            ("Div", DType::F32) => a_own.divided(b_own).filter(Extent::is_natural),
            ("Mod", DType::F32) => None,
            (_, DType::F32) if !a_own.is_natural() || !b_own.is_natural() => None,
            _ => element(extents, op, a_own, b_own),
        }
    })?;
    // An int32 wraps and a float rounds; sizes beyond end the run anyhow, other numbers are left to it.
    let is_far = |own: &Extent| match (own.known(), a.dtype) {
        (Some(own), DType::I32) => i32::try_from(own).is_err(),
        (Some(own), DType::F32) => own.unsigned_abs() > WHOLE_FLOAT_MAX as u64,
        _ => false,
    };
    if block.elements.iter().any(is_far) { None } else { Some(block) }
}

fn element(extents: &mut Extents, op: &str, a: &Extent, b: &Extent) -> Option<Extent> {
    let truth = |own: bool| Some(Extent::from(i64::from(own)));
    match op {
        "Add" => a.plus(b).ok(),
        "Sub" => a.minus(b).ok(),
        "Mul" => a.times(b).ok(),
        "Div" => match (a.known(), b.known()) {
            (Some(a), Some(b)) => Some(Extent::from(a.checked_div(b)?)),
            // Below zero it would be rounded up.
            _ => extents.quotient(a, b).ok(),
        },
        "Mod" => {
            let (a, b) = (a.known().filter(|&a| a >= 0)?, b.known().filter(|&b| b > 0)?);
            Some(Extent::from(a % b))
        }
        "Max" => extents_of(extents, a, b, true),
        "Min" => extents_of(extents, a, b, false),
        "And" => truth(a.known()? != 0 && b.known()? != 0),
        "Or" => truth(a.known()? != 0 || b.known()? != 0),
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" => {
            let (ahead, behind) = (a.minus(b).ok()?, b.minus(a).ok()?);
            let (ahead, is_above) = (ahead.known(), certain(&ahead));
            let is_below = certain(&behind);
            match (op, ahead) {
                ("Equal", Some(by)) => truth(by == 0),
                ("Equal", None) if is_above || is_below => truth(false),
                ("Less", Some(by)) => truth(by < 0),
                ("Greater", Some(by)) => truth(by > 0),
                ("LessOrEqual", Some(by)) => truth(by <= 0),
                ("GreaterOrEqual", Some(by)) => truth(by >= 0),
                ("Less" | "LessOrEqual", None) if is_below => truth(true),
                ("Greater" | "GreaterOrEqual", None) if is_above => truth(true),
                ("Less" | "LessOrEqual", None) if is_above => truth(false),
                ("Greater" | "GreaterOrEqual", None) if is_below => truth(false),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether it is above zero in every run.
fn certain(of: &Extent) -> bool {
    of.minus(&Extent::from(1)).is_ok_and(|less| less.is_natural())
}

fn extents_of(extents: &mut Extents, a: &Extent, b: &Extent, is_larger: bool) -> Option<Extent> {
    match (a.known(), b.known()) {
        (Some(a), Some(b)) => Some(Extent::from(if is_larger { a.max(b) } else { a.min(b) })),
        // Open ones are never below zero.
        _ if !a.is_natural() || !b.is_natural() => None,
        _ if is_larger => extents.larger(a, b).ok(),
        _ => extents.smaller(a, b).ok(),
    }
}

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    match node.op_type.as_str() {
        "Constant" => constant(g, node),
        "ConstantOfShape" => filled(g, node),
        "Mod" => Err("it is of numbers that a request decides".to_owned()),
        "Range" => range(g, node),
        "Shape" => shape(g, node),
        _ => {
            expect_inputs(node, 1..=1)?;
            let all = product(&g.dims(node, 0)?)?;
            g.follow(output(node), DType::I64, vec![], vec![all])
        }
    }
}

fn shape(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["end", "start"])?;
    let dims = g.dims(node, 0)?;
    let rank = dims.len() as i64;
    let place =
        |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (place(int(node, "start", 0)), place(int(node, "end", rank)));
    let sizes: Dims = dims.get(start..end).unwrap_or_default().to_vec();
    g.follow(output(node), DType::I64, extents(&[sizes.len()]), sizes)
}

fn constant(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 0..=0)?;
    let [own] = &node.attribute[..] else { return Err("it has no one value".to_owned()) };
    if g.has(output(node)) {
        return Err(format!("its output `{}` has the name of another value", output(node)));
    }
    let place = match own.name.as_str() {
        "value" => {
            let mut tensor = own.t.clone().ok_or("its attribute value is absent")?;
            output(node).clone_into(&mut tensor.name);
            g.add_constant(tensor);
            return Ok(());
        }
        "value_float" => g.number(own.f.unwrap_or_default()),
        "value_floats" => g.float(&[own.floats.len() as i64], &own.floats),
        "value_int" => g.scalar(&Extent::from(own.i.unwrap_or_default())),
        "value_ints" => g.ints(&own.ints),
        odd => return Err(format!("its attribute {odd} is not known")),
    };
    g.rename(&place, output(node))
}

fn filled(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["value"])?;
    let sizes = g.numbers(node, 0)?;
    let dims: Dims = sizes.iter().map(|size| g.extents.natural(size)).collect();
    let value = node.attribute.first().and_then(|own| own.t.clone());
    let fact = match &value {
        Some(tensor) => {
            let tensor = raw(tensor.clone()).ok_or("its value is of a dtype that is not read")?;
            Some((Fact::of(&tensor), tensor))
        }
        None => None,
    };
    let sizes: Option<Vec<usize>> = dims.iter().map(Extent::size).collect();
    if let (Some((fact, _)), Some(sizes)) = (&fact, sizes)
        && let Some([value]) = fact.elements.as_deref()
        && let Some(block) = Block::made(fact.dtype, sizes, |_| Some(value.clone()))
    {
        return follow(g, node, block);
    }
    let place = match fact {
        Some((fact, mut tensor)) if product(&fact.dims)?.is(1) => {
            tensor.dims = vec![];
            tensor.name = g.new_name("constant");
            let name = tensor.name.clone();
            g.add_constant(tensor);
            name
        }
        Some(_) => return Err("its value is no number".to_owned()),
        None => g.number(0.0),
    };
    let mut fact = g.fact_of(&place)?.clone();
    fact.elements = None;
    let target = g.vector(&dims);
    fact.dims = dims;
    g.emit_all("Expand", &[&place, &target], vec![], &[(output(node), fact)])
}

/// Of whole numbers that go up.
fn range(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 3..=3)?;
    expect_attributes(node, &[])?;
    let dtype = g.fact(node, 0)?.dtype;
    let mut ends = Vec::new();
    for at in 0..3 {
        let [value] = &g.numbers(node, at)?[..] else { return Err("it has odd ends".to_owned()) };
        ends.push(value.clone());
    }
    let step = ends[2].known().filter(|&step| step > 0).ok_or("it does not go up by a constant")?;
    let way = ends[1].minus(&ends[0])?.plus(&Extent::from(step - 1))?;
    let way = g.extents.larger(&way, &Extent::from(0))?;
    let count = g.extents.quotient(&way, &Extent::from(step))?;
    if let (Some(start), Some(count)) = (ends[0].known(), count.size())
        && let Some(block) = Block::made(dtype, vec![count], |at| {
            Some(Extent::from(start.checked_add(step.checked_mul(at[0] as i64)?)?))
        })
    {
        return follow(g, node, block);
    }
    let start = if ends[0].is_natural() { 0 } else { i32::MIN.into() };
    let mut fact = Fact::new(dtype, vec![count]);
    fact.range.0 = start;
    let ends: Vec<String> = ends.iter().map(|end| g.scalar(end)).collect();
    let inputs: Vec<&str> = ends.iter().map(String::as_str).collect();
    if dtype != DType::F32 {
        return g.emit_all("Range", &inputs, vec![], &[(output(node), fact)]);
    }
    let whole = Fact { dtype: DType::I64, ..fact.clone() };
    let whole = g.step_with("Range", &inputs, vec![], whole)?;
    let to = vec![("to", Written::Int(FLOAT.into()))];
    g.emit_all("Cast", &[&whole], to, &[(output(node), fact)])
}
