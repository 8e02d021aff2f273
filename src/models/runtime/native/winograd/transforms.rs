//! The linear transforms of Winograd's algorithm.

use pulp::Simd;

/// Linear transform from `I` to `O` values, applied to each lane of SIMD vectors. A trait instead of a function
/// argument, because functions passed as values are compiled without the target features of their caller.
pub(super) trait Transform<const I: usize, const O: usize> {
    fn apply<S: Simd>(s: S, values: [S::f32s; I]) -> [S::f32s; O];
}

/// Bᵀ of F(4, 3).
pub(super) struct InputF4;
/// Aᵀ of F(4, 3).
pub(super) struct OutputF4;
/// Bᵀ of F(2, 3).
pub(super) struct InputF2;
/// Aᵀ of F(2, 3).
pub(super) struct OutputF2;

impl Transform<6, 6> for InputF4 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        let [d0, d1, d2, d3, d4, d5] = d;
        let (two, four, five) = (s.splat_f32s(2.0), s.splat_f32s(4.0), s.splat_f32s(5.0));
        // Even and odd terms of the points ±1 and ±2; `negate_mul_add_f32s(a, b, c)` is c − a·b.
        let even1 = s.negate_mul_add_f32s(four, d2, d4);
        let odd1 = s.negate_mul_add_f32s(four, d1, d3);
        let even2 = s.sub_f32s(d4, d2);
        let odd2 = s.mul_f32s(two, s.sub_f32s(d3, d1));
        [
            s.add_f32s(s.mul_f32s(four, d0), s.negate_mul_add_f32s(five, d2, d4)),
            s.add_f32s(even1, odd1),
            s.sub_f32s(even1, odd1),
            s.add_f32s(even2, odd2),
            s.sub_f32s(even2, odd2),
            s.add_f32s(s.mul_f32s(four, d1), s.negate_mul_add_f32s(five, d3, d5)),
        ]
    }
}

impl Transform<6, 4> for OutputF4 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        let [m0, m1, m2, m3, m4, m5] = m;
        let (two, four, eight) = (s.splat_f32s(2.0), s.splat_f32s(4.0), s.splat_f32s(8.0));
        let (sum1, difference1) = (s.add_f32s(m1, m2), s.sub_f32s(m1, m2));
        let (sum2, difference2) = (s.add_f32s(m3, m4), s.sub_f32s(m3, m4));
        [
            s.add_f32s(m0, s.add_f32s(sum1, sum2)),
            s.mul_add_f32s(two, difference2, difference1),
            s.mul_add_f32s(four, sum2, sum1),
            s.add_f32s(s.mul_add_f32s(eight, difference2, difference1), m5),
        ]
    }
}

/// G of F(4, 3): one row of tap coefficients per point.
pub(super) const KERNEL_TRANSFORM_F4: [[f64; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// G of F(2, 3): one row of tap coefficients per point.
pub(super) const KERNEL_TRANSFORM_F2: [[f64; 3]; 4] =
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

impl Transform<4, 4> for InputF2 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
        let [d0, d1, d2, d3] = d;
        [s.sub_f32s(d0, d2), s.add_f32s(d1, d2), s.sub_f32s(d2, d1), s.sub_f32s(d1, d3)]
    }
}

impl Transform<4, 2> for OutputF2 {
    #[inline(always)]
    fn apply<S: Simd>(s: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
        let [m0, m1, m2, m3] = m;
        [s.add_f32s(s.add_f32s(m0, m1), m2), s.sub_f32s(s.sub_f32s(m1, m2), m3)]
    }
}
