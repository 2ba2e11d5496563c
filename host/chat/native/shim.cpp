// Chat templates: JSON in, JSON out. The functions of llama.cpp's `common` library do the work.

#include "common.h"
#include "log.h"
#include "jinja/runtime.h"
#include "jinja/value.h"
#include "chat.h"
#include "chat-auto-parser.h"

#include <cstring>
#include <list>

static common_json adjust_context(common_json context);
static autoparser::autoparser analyze_once(const common_chat_template & tmpl);

// `chat.cpp` is part of this file, so that two of its calls can be changed:
// - The variables of a template are those of Hugging Face's `apply_chat_template`. `common` adds `enable_thinking`,
//   `date_string` and `datetime`, which changes the prompts of templates that have defaults of their own. It also
//   changes the tools.
// - A template is analyzed once, not in each call.
#define global_from_json(context, values, mark) global_from_json(context, adjust_context(values), mark)
#define analyze_template(tmpl) operator=(analyze_once(tmpl))
#include "chat.cpp"
#undef global_from_json
#undef analyze_template

void tightwad_assertion_failed(const char * file, int line, const char * text) {
    const char * name = std::strrchr(file, '/');
    throw std::logic_error(std::string(name ? name + 1 : file) + ":" + std::to_string(line) + ": " + text);
}

// Functions of `common` whose files are not built.

std::string string_join(const std::vector<std::string> & values, const std::string & separator) {
    std::string joined;
    for (size_t place = 0; place < values.size(); place++) {
        joined += (place > 0 ? separator : "") + values[place];
    }
    return joined;
}

std::vector<std::string> string_split(const std::string & text, const std::string & delimiter) {
    std::vector<std::string> parts;
    size_t start = 0;
    for (size_t end; (end = text.find(delimiter, start)) != std::string::npos; start = end + delimiter.size()) {
        parts.push_back(text.substr(start, end - start));
    }
    parts.push_back(text.substr(start));
    return parts;
}

std::string string_repeat(const std::string & text, size_t count) {
    std::string repeated;
    for (size_t place = 0; place < count; place++) {
        repeated += text;
    }
    return repeated;
}

void string_replace_all(std::string & text, const std::string & search, const std::string & replacement) {
    if (search.empty()) {
        return;
    }
    for (size_t at = 0; (at = text.find(search, at)) != std::string::npos; at += replacement.size()) {
        text.replace(at, search.size(), replacement);
    }
}

std::vector<llama_token> common_tokenize(const llama_vocab *, const std::string &, bool, bool) {
    throw std::logic_error("templates have no tokenizer here");
}

std::string common_token_to_piece(const llama_vocab *, llama_token, bool) {
    throw std::logic_error("templates have no tokenizer here");
}

// Nothing is logged: answers say what is wrong.
int common_log_get_verbosity_thold(void) {
    return -1;
}

common_log * common_log_main() {
    return nullptr;
}

void common_log_add(common_log *, ggml_log_level, const char *, ...) {}

// A template with what is known about it.
struct compiled_template {
    std::string key;
    std::unique_ptr<common_chat_templates> templates;
    std::map<const common_chat_template *, autoparser::autoparser> analyses;
};

// The last used templates, the newest first. One thread calls this library.
static std::list<compiled_template> compiled;
static const size_t max_compiled = 32;

// The variables and the tools of the present request.
static common_json variables;
static common_json tools;
// The tools as `common` passes them on: with empty descriptions and parameters, and without further fields.
static common_json converted_tools;

static common_json adjust_context(common_json context) {
    if (context.contains("tools") && context.at("tools") == converted_tools) {
        context["tools"] = tools;
    }
    for (const char * name : {"enable_thinking", "date_string", "datetime"}) {
        if (!variables.contains(name) && context.contains(name)) {
            context.erase(name);
        }
    }
    return context;
}

static autoparser::autoparser analyze_once(const common_chat_template & tmpl) {
    for (auto & entry : compiled) {
        if (entry.templates->template_default.get() != &tmpl && entry.templates->template_tool_use.get() != &tmpl) {
            continue;
        }
        auto known = entry.analyses.find(&tmpl);
        if (known == entry.analyses.end()) {
            autoparser::autoparser analysis;
            // An analysis renders conversations of its own, with variables of its own.
            common_json of_request = std::move(variables);
            variables = common_json::object();
            variables["enable_thinking"] = true;
            try {
                analysis.analyze_template(tmpl);
            } catch (...) {
                variables = std::move(of_request);
                throw;
            }
            variables = std::move(of_request);
            known = entry.analyses.emplace(&tmpl, std::move(analysis)).first;
        }
        return known->second;
    }
    throw std::logic_error("an unknown template is analyzed");
}

static std::string text_of(const common_json & request, const char * name) {
    return request.contains(name) ? request.at(name).get<std::string>() : std::string();
}

// An error of the template itself.
struct template_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

static std::unique_ptr<common_chat_template> compile_source(
        const std::string & source, const std::string & bos, const std::string & eos) {
    try {
        return std::make_unique<common_chat_template>(source, bos, eos);
    } catch (const std::exception & error) {
        throw template_error(error.what());
    }
}

// Returns the templates of a request: `template`, `tool_template`, `bos`, `eos`.
static common_chat_templates & compile(const common_json & request) {
    const std::string source = text_of(request, "template"), tool_source = text_of(request, "tool_template");
    const std::string bos = text_of(request, "bos"), eos = text_of(request, "eos");
    std::string key = source;
    for (const std::string & part : {tool_source, bos, eos}) {
        key += std::string(1, '\0') + part;
    }
    for (auto entry = compiled.begin(); entry != compiled.end(); ++entry) {
        if (entry->key == key) {
            compiled.splice(compiled.begin(), compiled, entry);
            return *entry->templates;
        }
    }
    // The first call applies workarounds for the faults of known templates, but it hides the reason of an error.
    common_chat_templates_ptr templates;
    try {
        templates = common_chat_templates_init(nullptr, source, bos, eos);
    } catch (...) {
        compile_source(source, bos, eos);
        throw;
    }
    if (!tool_source.empty()) {
        templates->template_tool_use = compile_source(tool_source, bos, eos);
    }
    compiled.push_front({key, std::unique_ptr<common_chat_templates>(templates.release()), {}});
    if (compiled.size() > max_compiled) {
        compiled.pop_back();
    }
    return *compiled.front().templates;
}

static common_json inspect(const common_json & request) {
    auto & templates = compile(request);
    common_json facts = common_json::object();
    for (const auto & [name, value] : common_chat_templates_get_caps(&templates)) {
        facts[name] = value;
    }
    variables = common_json::object();
    tools = common_json::array();
    converted_tools = common_json::array();
    facts["supports_thinking"] = common_chat_templates_support_enable_thinking(&templates);
    return facts;
}

static common_chat_templates_inputs inputs_of(const common_json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages = common_chat_msgs_parse_oaicompat(request.at("messages"));
    tools = request.contains("tools") ? request.at("tools") : common_json::array();
    inputs.tools = common_chat_tools_parse_oaicompat(tools);
    converted_tools = common_chat_tools_to_json_oaicompat(inputs.tools);
    for (const auto & [name, value] : variables.items()) {
        inputs.chat_template_kwargs[name] = value.dump();
    }
    if (variables.contains("enable_thinking") && variables.at("enable_thinking").is_boolean()) {
        inputs.enable_thinking = variables.at("enable_thinking").get<bool>();
    }
    inputs.reasoning_format = COMMON_REASONING_FORMAT_AUTO;
    // Otherwise `common` compiles a grammar from the schemas of the tools, and refuses schemas that it cannot compile.
    inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_NONE;
    inputs.add_generation_prompt = request.at("add_generation_prompt").get<bool>();
    if (request.contains("continue_final_message")) {
        inputs.continue_final_message = common_chat_continuation_parse(request.at("continue_final_message"));
    }
    return inputs;
}

static common_json render(const common_json & request) {
    auto & templates = compile(request);
    variables = request.at("variables");
    const auto params = common_chat_templates_apply(&templates, inputs_of(request));
    common_json rendered = common_json::object();
    rendered["bytes"] = params.prompt.size();
    if (params.prompt.size() <= request.at("max_bytes").get<size_t>()) {
        rendered["prompt"] = params.prompt;
    }
    return rendered;
}

// Answers one request: {"ok": ...}, {"template": "reason"} if the template does not compile, or {"refused": "reason"}.
static std::string answer(const char * text) {
    common_json result = common_json::object();
    try {
        const auto request = common_json::parse(std::string(text));
        const auto operation = text_of(request, "operation");
        result["ok"] = operation == "inspect" ? inspect(request) : render(request);
    } catch (const template_error & error) {
        result["template"] = std::string(error.what());
    } catch (const std::exception & error) {
        result["refused"] = std::string(error.what());
    } catch (...) {
        result["refused"] = std::string("unknown error");
    }
    return result.dump_safe();
}

extern "C" char * tightwad_chat(const char * request) {
    try {
        return strdup(answer(request).c_str());
    } catch (...) {
        return nullptr;
    }
}

extern "C" void tightwad_chat_free(char * answer) {
    free(answer);
}
