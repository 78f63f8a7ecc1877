; inherits: c
; extensions: .m .mm
(class_interface . (identifier) @name !category) @definition.class
(class_interface . (identifier) @name category: (_)) @definition.implementation
(protocol_declaration . (identifier) @name) @definition.class
(class_implementation . (identifier) @name) @definition.implementation
(method_definition
  [(identifier) @name (method_parameter ":" @name)]+ (compound_statement) @body)
  @definition.method
; typedef NS_ENUM(NSInteger, Mode) { … };
(type_definition type: (macro_type_specifier (ERROR (identifier) @name))) @definition.type

(message_expression method: (identifier)) @reference.selector

(module_import) @import
