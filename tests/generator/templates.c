/* templates.c: the template engine, on templates of its own. */
#include <criterion/criterion.h>
#include <string.h>

#include "template.h"

static mmlp_status bind(lua_State *lua, const void *user)
{
    (void)user;
    lua_pushinteger(lua, 3);
    lua_setfield(lua, -2, "three");
    lua_pushliteral(lua, "first;\n\nsecond;");
    lua_setfield(lua, -2, "lines");
    lua_pushliteral(lua, "");
    lua_setfield(lua, -2, "empty");
    return MMLP_OK;
}

static mmlp_status expand(template_output *out, const char *content, const char *included)
{
    const template_file files[] = {{"templates/main.cu", content, strlen(content)},
                                   {"templates/device/part.cuh", included, strlen(included)},
                                   {0}};
    return template_expand(out, files, "main.cu", bind, NULL);
}

static void expands(const char *content, const char *wanted)
{
    template_output out;
    cr_assert_eq(expand(&out, content, "part ${three}\n"), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_str_eq(text_string(&out.text), wanted);
    template_output_free(&out);
}

static void fails(const char *content, const char *message)
{
    template_output out;
    cr_assert_eq(expand(&out, content, "part ${nothing}\n"), MMLP_ERROR_FORMAT);
    cr_assert_str_eq(mmlp_last_error(), message);
    template_output_free(&out);
}

Test(template, text_stays_as_it_is)
{
    expands("a \"b\" \\n $x {y} // z\n\n", "a \"b\" \\n $x {y} // z\n\n");
    expands("no newline", "no newline\n");
}

Test(template, expressions_are_replaced)
{
    expands("x = ${three};\n", "x = 3;\n");
    expands("${three + 1}${three}\n", "43\n");
    expands("${table.concat({\"}\", \"{\"}, ' ')}\n", "} {\n");
    expands("${({7, 8})[2]}\n", "8\n");
}

Test(template, lua_lines_run)
{
    expands("//% for i = 1, three do\n  row ${i}\n//% end\n", "  row 1\n  row 2\n  row 3\n");
    expands("  //% local x = 5\n${x}\n", "5\n");
    expands("//% x = 5\n${x}\n", "5\n");
}

Test(template, a_value_of_several_lines_keeps_the_column_when_it_opens_the_line)
{
    expands("    ${lines}\n", "    first;\n\n    second;\n");
    expands("a ${lines}\n", "a first;\n\nsecond;\n");
}

Test(template, a_line_that_holds_only_an_empty_value_is_none)
{
    expands("a\n    ${empty}\nb\n", "a\nb\n");
    expands("a${empty}\n", "a\n");
}

Test(template, include_expands_in_place)
{
    expands("a\n//% include \"device/part.cuh\"\nb\n", "a\npart 3\nb\n");
}

Test(template, errors_have_the_templates_line)
{
    fails("a\n\n${unknown}\n", "templates/main.cu:3: unknown name 'unknown'");
    fails("a\n${({}).x}\n", "templates/main.cu:2: '({}).x' is nil");
    fails("${{}}\n", "templates/main.cu:1: '{}' is a table, wanted text or number");
    fails("a\n${three\n", "templates/main.cu:2: '${' without '}'");
    fails("a\n//% if true\nb\n", "templates/main.cu:3: 'then' expected near '_line'");
    fails("//% include \"none.cuh\"\n",
          "templates/main.cu:1: include \"none.cuh\": there is no such template");
    fails("\n//% include \"device/part.cuh\"\n",
          "templates/device/part.cuh:1: unknown name 'nothing'");
}

static void comes_from(const template_output *out, int output_line, const char *name, int line)
{
    const char *found;
    int found_line;
    template_locate(&found, &found_line, out, output_line);
    cr_assert_str_eq(found, name, "line %d", output_line);
    cr_assert_eq(found_line, line, "line %d is %d", output_line, found_line);
}

Test(template, every_line_knows_where_it_came_from)
{
    template_output out;
    cr_assert_eq(expand(&out,
                        "//% for i = 1, 2 do\nx\n//% end\n${lines}\n"
                        "//% include \"device/part.cuh\"\nlast\n",
                        "p\nq\n"),
                 MMLP_OK, "%s", mmlp_last_error());
    static const struct {
        const char *name;
        int line;
    } wanted[] = {{"templates/main.cu", 2},         {"templates/main.cu", 2},
                  {"templates/main.cu", 4},         {"templates/main.cu", 4},
                  {"templates/main.cu", 4},         {"templates/device/part.cuh", 1},
                  {"templates/device/part.cuh", 2}, {"templates/main.cu", 6}};
    for (int i = 0; i < 8; i++)
        comes_from(&out, i + 1, wanted[i].name, wanted[i].line);
    const char *none;
    int line;
    template_locate(&none, &line, &out, 0);
    cr_assert_null(none);
    template_output_free(&out);
}

Test(template, embedded_templates_are_there)
{
    bool gemm = false;
    for (const template_file *file = template_files; file->name; file++) {
        gemm = gemm || strcmp(file->name, "templates/kernels/sm_80_gemm.cu") == 0;
        cr_assert_eq(strlen(file->text), file->bytes);
    }
    cr_assert(gemm);
}
