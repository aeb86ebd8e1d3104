/*
 * exec_alu.h: makes handlers from the rows of ops_*.def that the includer includes after it.
 */
#ifndef EMU_EXEC_ALU_H
#define EMU_EXEC_ALU_H

#include <fenv.h>

#include "exec_lanes.h"

/* clang-format off */
#define OP1(name, opcode, req, opt, t, t2, D, A, ...)                                              \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        D *d = REG(D, 0);                                                                          \
        const A *pa = REG(const A, 1);                                                             \
        LANES(const A a = pa[i]; d[i] = (D)(__VA_ARGS__););                                        \
    }
#define OP2(name, opcode, req, opt, t, t2, D, A, B, ...)                                           \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        D *d = REG(D, 0);                                                                          \
        const A *pa = REG(const A, 1);                                                             \
        const B *pb = REG(const B, 2);                                                             \
        LANES(const A a = pa[i]; const B b = pb[i]; d[i] = (D)(__VA_ARGS__););                     \
    }
#define OP3(name, opcode, req, opt, t, t2, D, A, B, C, ...)                                        \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        D *d = REG(D, 0);                                                                          \
        const A *pa = REG(const A, 1);                                                             \
        const B *pb = REG(const B, 2);                                                             \
        const C *pc = REG(const C, 3);                                                             \
        LANES(const A a = pa[i]; const B b = pb[i]; const C c = pc[i]; d[i] = (D)(__VA_ARGS__););  \
    }
#define OP4(name, opcode, req, opt, t, t2, D, A, B, C, E, ...)                                     \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        D *d = REG(D, 0);                                                                          \
        const A *pa = REG(const A, 1);                                                             \
        const B *pb = REG(const B, 2);                                                             \
        const C *pc = REG(const C, 3);                                                             \
        const E *pe = REG(const E, 4);                                                             \
        LANES(const A a = pa[i]; const B b = pb[i]; const C c = pc[i]; const E e = pe[i];          \
              d[i] = (D)(__VA_ARGS__););                                                           \
    }

/* The mode is set before operands are loaded and reset after results are stored: calls order both.
    */
#define ROUND1(name, opcode, opt, t, T, ...)                                                       \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        const u32 aux = in->aux;                                                                   \
        T *d = REG(T, 0);                                                                          \
        const T *pa = REG(const T, 1);                                                             \
        enter_rounding(aux);                                                                       \
        LANES(const T a = flush_##T(pa[i], aux); d[i] = finish_##T(__VA_ARGS__, aux););            \
        leave_rounding(aux);                                                                       \
    }
#define ROUND2(name, opcode, opt, t, T, ...)                                                       \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        const u32 aux = in->aux;                                                                   \
        T *d = REG(T, 0);                                                                          \
        const T *pa = REG(const T, 1), *pb = REG(const T, 2);                                      \
        enter_rounding(aux);                                                                       \
        LANES(const T a = flush_##T(pa[i], aux); const T b = flush_##T(pb[i], aux);                \
              d[i] = finish_##T(__VA_ARGS__, aux););                                               \
        leave_rounding(aux);                                                                       \
    }
#define ROUND3(name, opcode, opt, t, T, ...)                                                       \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        const u32 aux = in->aux;                                                                   \
        T *d = REG(T, 0);                                                                          \
        const T *pa = REG(const T, 1), *pb = REG(const T, 2), *pc = REG(const T, 3);               \
        enter_rounding(aux);                                                                       \
        LANES(const T a = flush_##T(pa[i], aux); const T b = flush_##T(pb[i], aux);                \
              const T c = flush_##T(pc[i], aux); d[i] = finish_##T(__VA_ARGS__, aux););            \
        leave_rounding(aux);                                                                       \
    }

/* A function of 16-bit values f(a, .., aux, format), alone and on both halves of a register. */
#define HALF_ALONE(name, format, sources, call)                                                    \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        const u32 aux = in->aux;                                                                   \
        u16 *d = REG(u16, 0);                                                                      \
        const u16 *pa = REG(const u16, 1), *pb = REG(const u16, sources > 1 ? 2 : 1),              \
                  *pc = REG(const u16, sources > 2 ? 3 : 1);                                       \
        const small_format *f = &format;                                                           \
        LANES(const u16 a = pa[i]; const u16 b = pb[i]; const u16 c = pc[i];                       \
              (void)b; (void)c; d[i] = call;);                                                     \
    }
#define HALF_PAIR(name, format, sources, call)                                                     \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        const u32 aux = in->aux;                                                                   \
        u32 *d = REG(u32, 0);                                                                      \
        const u32 *pa = REG(const u32, 1), *pb = REG(const u32, sources > 1 ? 2 : 1),              \
                  *pc = REG(const u32, sources > 2 ? 3 : 1);                                       \
        const small_format *f = &format;                                                           \
        LANES(const u32 wa = pa[i]; const u32 wb = pb[i]; const u32 wc = pc[i]; u32 result = 0;    \
              for (int k = 0; k < 32; k += 16) {                                                   \
                  const u16 a = (u16)(wa >> k); const u16 b = (u16)(wb >> k);                      \
                  const u16 c = (u16)(wc >> k);                                                    \
                  (void)b; (void)c; result |= (u32)(call) << k;                                    \
              } d[i] = result;);                                                                   \
    }
#define HALF_ALL(name, sources, call)                                                              \
    HALF_ALONE(name##_f16, format_f16, sources, call)                                              \
    HALF_ALONE(name##_bf16, format_bf16, sources, call)                                            \
    HALF_PAIR(name##_f16x2, format_f16, sources, call)                                             \
    HALF_PAIR(name##_bf16x2, format_bf16, sources, call)
#define HALF1(name, opcode, req, opt, req_bf, opt_bf, function) HALF_ALL(name, 1, function(a, aux, f))
#define HALF2(name, opcode, req, opt, req_bf, opt_bf, function) HALF_ALL(name, 2, function(a, b, aux, f))
#define HALF3(name, opcode, req, opt, req_bf, opt_bf, function) HALF_ALL(name, 3, function(a, b, c, aux, f))
/* clang-format on */

static inline void enter_rounding(u32 aux)
{
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    if (aux & AUX_ROUNDING) {
        fesetround(modes[aux & AUX_ROUNDING]);
    }
}

static inline void leave_rounding(u32 aux)
{
    if (aux & AUX_ROUNDING) {
        fesetround(FE_TONEAREST);
    }
}

#endif
