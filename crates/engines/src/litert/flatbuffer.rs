//! Reading flatbuffers that may be damaged or hostile: tables, vectors and texts by position.
//!
//! Owns bounds. May not know: what a table means. Invariant: no read leaves the file, and reading a
//! file once gives no more elements than it has bytes, however its offsets are shared.
//! The published crates need a compiler for the schema at build time, or `unsafe` for tables written
//! by hand; and the positions of what is read are needed here, to put a changed head before a file.

use std::cell::Cell;

use vesta_model::Status;

/// A file to be read.
#[derive(Debug)]
pub(crate) struct File<'f> {
    pub(crate) bytes: &'f [u8],
    /// Elements that may still be read.
    budget: Cell<usize>,
}

/// A table in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'f> {
    file: &'f File<'f>,
    /// Where it begins.
    pub(crate) at: usize,
    /// Where its field offsets begin, and how many there are.
    slots: (usize, usize),
}

/// The error of every read.
pub(crate) fn broken(what: &str) -> Status {
    Status::new(
        vesta_model::Code::DataLoss,
        format!("the model.tflite is damaged: {what}; write it again"),
    )
}

impl<'f> File<'f> {
    pub(crate) fn new(bytes: &'f [u8]) -> File<'f> {
        File { bytes, budget: Cell::new(bytes.len()) }
    }

    /// The table that the file begins with.
    ///
    /// # Errors
    /// `DATA_LOSS`, as for every read.
    pub(crate) fn root(&'f self) -> Result<Table<'f>, Status> {
        self.table(self.target(0)?)
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Status> {
        let end = at.checked_add(N);
        let found = end.and_then(|end| self.bytes.get(at..end)).and_then(|b| b.try_into().ok());
        found.ok_or_else(|| broken("an offset leads out of it"))
    }

    fn u32(&self, at: usize) -> Result<u32, Status> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    /// Where the offset at `at` leads.
    fn target(&self, at: usize) -> Result<usize, Status> {
        let offset = self.u32(at)? as usize;
        at.checked_add(offset)
            .filter(|&target| offset > 0 && target < self.bytes.len())
            .ok_or_else(|| broken("an offset leads out of it"))
    }

    fn table(&'f self, at: usize) -> Result<Table<'f>, Status> {
        self.spend(1)?;
        let back = i64::from(i32::from_le_bytes(self.array(at)?));
        let slots = i64::try_from(at).ok().and_then(|at| usize::try_from(at - back).ok());
        let slots = slots.ok_or_else(|| broken("a table has no fields"))?;
        let bytes = usize::from(u16::from_le_bytes(self.array(slots)?));
        if bytes < 4 || self.bytes.len() - slots < bytes {
            return Err(broken("the fields of a table lead out of it"));
        }
        Ok(Table { file: self, at, slots: (slots + 4, (bytes - 4) / 2) })
    }

    /// Where the elements of the vector at `at` begin, and how many there are.
    fn vector(&self, at: usize, width: usize) -> Result<(usize, usize), Status> {
        let count = self.u32(at)? as usize;
        let fits = count.checked_mul(width).is_some_and(|n| n <= self.bytes.len() - at - 4);
        if !fits {
            return Err(broken("a vector leads out of it"));
        }
        Ok((at + 4, count))
    }

    fn spend(&self, elements: usize) -> Result<(), Status> {
        let left = self.budget.get().checked_sub(elements);
        self.budget.set(left.ok_or_else(|| broken("it refers to the same parts again and again"))?);
        Ok(())
    }
}

impl<'f> Table<'f> {
    /// Where a field is, if the table has it.
    fn field(&self, slot: usize) -> Result<Option<usize>, Status> {
        if slot >= self.slots.1 {
            return Ok(None);
        }
        let offset = usize::from(u16::from_le_bytes(self.file.array(self.slots.0 + 2 * slot)?));
        Ok((offset > 0).then_some(self.at + offset))
    }

    /// A byte; 0 where the field is left out.
    pub(crate) fn byte(&self, slot: usize) -> Result<u8, Status> {
        let field = self.field(slot)?;
        Ok(field.map(|at| self.file.array::<1>(at)).transpose()?.map_or(0, |[byte]| byte))
    }

    /// A 32-bit number; 0 where the field is left out.
    pub(crate) fn number(&self, slot: usize) -> Result<u32, Status> {
        Ok(self.field(slot)?.map(|at| self.file.u32(at)).transpose()?.unwrap_or(0))
    }

    /// A 64-bit number; 0 where the field is left out.
    pub(crate) fn long(&self, slot: usize) -> Result<u64, Status> {
        let field = self.field(slot)?;
        let bytes = field.map(|at| self.file.array(at)).transpose()?;
        Ok(bytes.map_or(0, u64::from_le_bytes))
    }

    /// Where what a field refers to lies.
    pub(crate) fn place(&self, slot: usize) -> Result<Option<usize>, Status> {
        self.field(slot)?.map(|at| self.file.target(at)).transpose()
    }

    /// The table that a field refers to, each of whose fields begins within it, and it within the file.
    pub(crate) fn table(&self, slot: usize) -> Result<Option<Table<'f>>, Status> {
        let Some(at) = self.place(slot)? else { return Ok(None) };
        let table = self.file.table(at)?;
        let bytes = usize::from(u16::from_le_bytes(self.file.array(table.slots.0 - 2)?));
        let fits = |slot| Ok(table.field(slot)?.is_none_or(|field| field - at < bytes));
        let fields = (0..table.slots.1).map(fits).collect::<Result<Vec<bool>, Status>>()?;
        if self.file.bytes.len() - at < bytes || fields.contains(&false) {
            return Err(broken("the fields of a table lead out of it"));
        }
        Ok(Some(table))
    }

    /// A text; `None` where the field is left out.
    pub(crate) fn text(&self, slot: usize) -> Result<Option<&'f str>, Status> {
        let bytes = self.bytes(slot)?;
        let text = bytes.map(std::str::from_utf8).transpose();
        text.map_err(|_| broken("a name is not UTF-8"))
    }

    /// A vector of bytes, or the bytes of a text.
    pub(crate) fn bytes(&self, slot: usize) -> Result<Option<&'f [u8]>, Status> {
        let Some(at) = self.place(slot)? else { return Ok(None) };
        let (first, count) = self.file.vector(at, 1)?;
        Ok(Some(&self.file.bytes[first..first + count]))
    }

    /// A vector of numbers; empty where the field is left out.
    pub(crate) fn numbers(&self, slot: usize) -> Result<Vec<i32>, Status> {
        let Some(at) = self.place(slot)? else { return Ok(Vec::new()) };
        let (first, count) = self.file.vector(at, 4)?;
        self.file.spend(count)?;
        (0..count).map(|n| Ok(i32::from_le_bytes(self.file.array(first + 4 * n)?))).collect()
    }

    /// A vector of tables; empty where the field is left out.
    pub(crate) fn tables(&self, slot: usize) -> Result<Vec<Table<'f>>, Status> {
        let Some(at) = self.place(slot)? else { return Ok(Vec::new()) };
        let (first, count) = self.file.vector(at, 4)?;
        self.file.spend(count)?;
        (0..count).map(|n| self.file.table(self.file.target(first + 4 * n)?)).collect()
    }
}
