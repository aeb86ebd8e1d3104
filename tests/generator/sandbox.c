/* sandbox.c: what a spec cannot do, and what happens when it tries. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "spec_text.h"

Test(sandbox, an_endless_loop_stops)
{
    spec_text_fails("while true do end", "bad.lua: spec ran more than 10000000 instructions");
}

Test(sandbox, runaway_recursion_stops)
{
    module_spec spec;
    spec_text_fails("local function f() return 1 + f() end\nf()",
                    "bad.lua: spec used more than 64 MiB of memory");
    cr_assert_eq(spec_text_load(&spec,
                                "local function f(a, b) return table.sort({1, 2, 3}, f) end\n"
                                "table.sort({1, 2, 3}, f)"),
                 MMLP_ERROR_SPEC);
    cr_assert(strstr(mmlp_last_error(), "C stack overflow"), "%s", mmlp_last_error());
}

Test(sandbox, memory_is_bounded)
{
    static const char message[] = "bad.lua: spec used more than 64 MiB of memory";
    spec_text_fails("local s = string.rep(\"x\", 1 << 30)", message);
    spec_text_fails("local t = {}\nfor i = 1, 1e9 do t[i] = {i} end", message);
    spec_text_fails("local s = \"x\"\nwhile true do s = s .. s end", message);
}

Test(sandbox, deeply_nested_text_is_refused)
{
    text content = TEXT_INIT;
    text_puts(&content, "return ");
    for (int i = 0; i < 100000; i++)
        text_puts(&content, "{");
    module_spec spec;
    cr_assert_eq(spec_text_load(&spec, text_string(&content)), MMLP_ERROR_SPEC);
    cr_assert(strstr(mmlp_last_error(), "C stack overflow"), "%s", mmlp_last_error());
    text_free(&content);
}

Test(sandbox, bytecode_is_refused)
{
    spec_text_fails("\033Lua", "bad.lua: attempt to load a binary chunk (mode is 't')");
}

Test(sandbox, only_listed_globals_exist)
{
    static const char *const absent[] = {
        "io",     "os",         "require",      "load",           "loadfile",
        "dofile", "loadstring", "package",      "debug",          "coroutine",
        "pcall",  "xpcall",     "setmetatable", "getmetatable",   "rawget",
        "rawset", "rawequal",   "rawlen",       "collectgarbage", "print",
        "next",   "select",     "_G",           "_VERSION",       "utf8",
        "warn",   "tonumber"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        char content[64];
        module_spec spec;
        snprintf(content, sizeof content, "local x = %s", absent[i]);
        cr_assert_eq(spec_text_load(&spec, content), MMLP_ERROR_SPEC, "%s exists", absent[i]);
        cr_assert(strstr(mmlp_last_error(), "bad.lua:1: unknown name"), "%s", mmlp_last_error());
    }
}

Test(sandbox, no_member_of_a_library_is_unbounded_or_random)
{
    static const char *const absent[] = {"math.random",   "math.randomseed", "string.gsub",
                                         "string.gmatch", "string.match",    "string.dump",
                                         "string.pack",   "table.move"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        char content[64];
        snprintf(content, sizeof content, "assert(%s == nil, \"exists\")\nerror(\"absent\")",
                 absent[i]);
        spec_text_fails(content, "bad.lua:2: absent");
    }
    spec_text_fails("assert((\"x\").gsub == nil, \"exists\")\nerror(\"absent\")",
                    "bad.lua:2: absent");
}

Test(sandbox, find_is_plain_only)
{
    spec_text_fails("error(tostring(string.find(\"hidden_size\", \"size\")))", "bad.lua:1: 8");
    spec_text_fails("error(tostring((\"a.b\"):find(\".\", 1, true)))", "bad.lua:1: 2");
    spec_text_fails("error(tostring((\"abc\"):find(\"c\", -1)))", "bad.lua:1: 3");
    spec_text_fails("error(tostring((\"abc\"):find(\"d\", 9)))", "bad.lua:1: nil");
    spec_text_fails("local a = string.find(\"a\", \"a*\")",
                    "bad.lua:1: string.find: patterns are not allowed; pass true as 4th argument");
}

Test(sandbox, nothing_prints_an_address)
{
    spec_text_fails("error(tostring({}) .. tostring(print_nothing == nil))",
                    "bad.lua:1: unknown name 'print_nothing'");
    spec_text_fails("error(tostring({}) .. tostring(ipairs) .. tostring(F.gelu))",
                    "bad.lua:1: tablefunctionactivation");
    spec_text_fails("error(string.format(\"%s %5.1f\", {}, 2))", "bad.lua:1: table   2.0");
    spec_text_fails("local a = string.format(\"%-10p\", {})",
                    "bad.lua:1: string.format: %p is not allowed: it prints an address");
    spec_text_fails("error(tostring(init.zeros()) .. tostring(MLP))", "bad.lua:1: initMLP");
}

Test(sandbox, pairs_goes_in_sorted_order)
{
    spec_text_fails(
        "local s = \"\"\nfor k, v in pairs({z = 1, a = 2, [10] = 3, [2] = 4, [true] = 5}) "
        "do s = s .. tostring(k) .. \"=\" .. v .. \" \" end\nerror(s)",
        "bad.lua:3: true=5 2=4 10=3 a=2 z=1 ");
    spec_text_fails("for k in pairs({[{}] = 1}) do end",
                    "bad.lua:1: pairs: a key of type table has no order");
    spec_text_fails("for k in pairs({}) do end error(\"done\")", "bad.lua:1: done");
}

Test(sandbox, include_reads_beside_the_spec_only)
{
    module_spec spec;
    spec_text_file("common.lua", "return { hidden = 64 }");
    cr_assert_eq(spec_text_load(&spec, "local c = include \"common.lua\"\n"
                                       "return ModuleSpec { module = MLP, params = { config = "
                                       "TransformerConfig { hidden_size = c.hidden } },\n"
                                       "submodules = MLPSubmodules { linear_fc1 = "
                                       "ColumnParallelLinear, linear_fc2 = RowParallelLinear } }"),
                 MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(spec.config.hidden_size, 64);
    spec_free(&spec);
    spec_text_fails("include \"../x.lua\"",
                    "bad.lua:1: include \"../x.lua\": only a file beside the "
                    "spec, named without folder");
    spec_text_fails("include \"/etc/passwd\"", "bad.lua:1: include \"/etc/passwd\": only a file "
                                               "beside the spec, named without folder");
    spec_text_fails("include \"none.lua\"",
                    "bad.lua:1: include \"none.lua\": none.lua: cannot open: "
                    "No such file or directory");
    spec_text_fails("include \"bad.lua\"",
                    "bad.lua:1: include \"bad.lua\": the file includes itself");
    spec_text_file("broken.lua", "\nlocal c = TransformerConfig { hidden = 64 }");
    spec_text_fails("include \"broken.lua\"",
                    "broken.lua:2: TransformerConfig.hidden_size is missing\n"
                    "broken.lua:2:31: unknown field 'hidden' in TransformerConfig");
}

/* Fails every allocation from the Nth on, for each N, until the spec loads. */
Test(sandbox, out_of_memory_anywhere_is_an_error_and_no_crash)
{
    char *content = spec_text_config("hidden_size = 64, activation_func = activation(\"a\", "
                                     "function(x) return x * sigmoid(x) end)",
                                     "per_token_scale = true");
    spec_text_file("bad.lua", content);
    free(content);
    mmlp_status status = MMLP_ERROR_MEMORY;
    long long n = 0;
    while (status == MMLP_ERROR_MEMORY && n < 100000) {
        module_spec spec;
        status = spec_load(&spec, "bad.lua", &(spec_options){.fail_allocation = ++n});
        if (status == MMLP_OK)
            spec_free(&spec);
        else
            cr_assert_str_eq(mmlp_last_error(), "out of memory while reading bad.lua");
    }
    cr_assert_eq(status, MMLP_OK, "%lld: %s", n, mmlp_last_error());
    cr_assert_gt(n, 100);
}

/* The same while a spec is wrong: the message itself needs no memory of Lua. */
Test(sandbox, out_of_memory_while_failing_is_no_crash)
{
    spec_text_file("bad.lua", "local t = {}\nlocal c = TransformerConfig { hidden = 64 }");
    mmlp_status status = MMLP_ERROR_MEMORY;
    for (long long n = 1; status == MMLP_ERROR_MEMORY && n < 100000; n++) {
        module_spec spec;
        status =
            spec_load(&spec, "bad.lua", &(spec_options){.fail_allocation = n, .traceback = true});
    }
    cr_assert_eq(status, MMLP_ERROR_SPEC);
}
