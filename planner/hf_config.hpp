// Reads a Model from text: the config.json of a Hugging Face MoE model, or our own "topomoe.model/1".
//
// One row a family in hf_config.cpp says which key holds what. Keys that we do not use are ignored; keys
// that we use are never replaced by a default of the family's Python class, since those are not the
// published models. Numbers that are fractional, negative or absurdly large are rejected by name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topomoe/model.hpp"

namespace topomoe {

// `where` labels errors and names the model when the text does not ("configs/models/x.json" -> "x").
// Throws InvalidInput: unknown model_type (with the known ones), dense models, missing keys, broken JSON.
Model read_hf_config(std::string_view text, const std::string& where);

// Values of model_type that read_hf_config knows.
std::vector<std::string> known_model_types();

}  // namespace topomoe
